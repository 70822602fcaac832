//! Whom the events of a batch are about, and who may say so.

use std::collections::HashMap;

use edge::{Caller, Code, Problem};
use metering::accounts::UserId;
use metering::usage::UserRef;

use super::split::Item;
use crate::candidate::Reporter;
use crate::{Ingest, unknown_user, user_missing};

/// One for each item, in order. External ids are looked up all at once.
///
/// # Errors
/// 503 when the accounts cannot be asked.
pub(super) async fn reporters(
    ingest: &Ingest,
    caller: &Caller,
    items: &[Item],
) -> Result<Vec<Result<Reporter, Problem>>, Problem> {
    let own = caller.user_id().ok();
    let anybody = own.is_none() || caller.is_admin();
    let externals = if anybody { externals(ingest, items).await? } else { HashMap::new() };
    let reporter = |item: &Item| {
        let Item::Read(input) = item else { return Err(unknown_user()) };
        let named = match &input.user {
            Ok(named) => named.as_ref(),
            Err(error) => return Err(crate::bad_field(error.clone())),
        };
        let user = match (named, own) {
            (None, Some(own)) => own,
            (None, None) => return Err(user_missing()),
            (Some(UserRef::Id(id)), _) if anybody || own == Some(*id) => *id,
            _ if !anybody => {
                return Err(Problem::new(Code::Forbidden, "users may report only on themselves"));
            }
            (Some(UserRef::External(external)), _) => {
                externals.get(external.as_str()).copied().ok_or_else(unknown_user)?
            }
            (Some(UserRef::Id(_) | UserRef::Nobody), _) => return Err(unknown_user()),
        };
        Ok(if anybody { Reporter::on(user, caller) } else { Reporter::own(user) })
    };
    Ok(items.iter().map(reporter).collect())
}

async fn externals<'a>(
    ingest: &Ingest,
    items: &'a [Item],
) -> Result<HashMap<&'a str, UserId>, Problem> {
    let mut named: Vec<&str> = items
        .iter()
        .filter_map(|item| match item {
            Item::Read(input) => match &input.user {
                Ok(Some(UserRef::External(external))) => Some(external.as_str()),
                Ok(Some(UserRef::Id(_) | UserRef::Nobody) | None) | Err(_) => None,
            },
            Item::Bad { .. } => None,
        })
        .collect();
    named.sort_unstable();
    named.dedup();
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let asked: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
    let found = ingest.parts().accounts.find_external(&asked).await?;
    Ok(named.into_iter().zip(found).filter_map(|(name, id)| Some((name, id?))).collect())
}
