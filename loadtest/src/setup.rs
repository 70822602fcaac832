//! Before and after the load: makes the users, and compares the books.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::books::{Audit, Books, UserSums, read_history};
use crate::client::{Address, Api};
use crate::options::Comparison;
use crate::traffic::Traffic;

/// Users are made over so many connections: each one costs the server a sync of its disk.
const MAKERS: usize = 16;

/// What was acknowledged must be counted by then.
const COUNTED_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 120 });

/// Makes the users of these external ids and plans, and answers their ids in the same order.
///
/// # Errors
/// When the server refuses one: the key lacks the scope, or the plan is not there.
pub(crate) async fn make_users(
    address: &Address,
    api_key: &str,
    names: Vec<(String, &'static str)>,
) -> anyhow::Result<Vec<String>> {
    let per_maker = names.len().div_ceil(MAKERS).max(1);
    let mut makers = Vec::new();
    for share in names.chunks(per_maker) {
        let (mut api, share) = (Api::new(address.clone(), api_key), share.to_vec());
        makers.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for (external_id, plan) in share {
                let body = json!({"external_id": external_id, "plan": plan}).to_string();
                let made = api.post("/api/users", &body).await?.json()?;
                let id = made["id"].as_str().context("a user without an id")?;
                ids.push(id.to_owned());
            }
            anyhow::Ok(ids)
        }));
    }
    let mut ids = Vec::new();
    for maker in makers {
        ids.extend(maker.await?.context("making the users of the run")?);
    }
    Ok(ids)
}

/// Compares what the client knows with what the server counted, once it has counted all.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn compare(
    api: &mut Api,
    traffic: &Traffic,
    books: &Books,
    how: Comparison,
) -> anyhow::Result<Option<Audit>> {
    if how == Comparison::None {
        return Ok(None);
    }
    let sums = sums_when_counted(api, traffic, books.summary().acknowledged).await?;
    let mut audit = Audit::default();
    match how {
        Comparison::Totals => {
            for (user, bounds) in traffic.users.iter().zip(books.bounds(traffic)) {
                audit.user_sums(user, sums.get(user).copied().unwrap_or_default(), bounds);
            }
        }
        Comparison::History | Comparison::None => {
            for (index, user) in traffic.users.iter().enumerate() {
                let path = format!("/api/users/{user}/tokens/history");
                let answer = api.get(&path, "text/csv").await?;
                if answer.status != 200 {
                    bail!("the history of {user}: {}", answer.status);
                }
                for row in read_history(answer.body)? {
                    books.tick_off(traffic, index, &row, &mut audit);
                }
            }
            books.close(&mut audit);
        }
    }
    for user in &traffic.users[..traffic.over_limit_users] {
        let path = format!("/api/users/{user}/tokens");
        let tokens = api.get(&path, "application/json").await?.json()?;
        let used = tokens.pointer("/usage/used").and_then(Value::as_u64);
        let limit = tokens.pointer("/usage/limit").and_then(Value::as_u64);
        audit.limit(user, used.context("usage without used")?, limit);
    }
    Ok(Some(audit))
}

/// The sums of each user that has any, once they hold at least `acknowledged` events or it took
/// too long (which the comparison then shows).
async fn sums_when_counted(
    api: &mut Api,
    traffic: &Traffic,
    acknowledged: u64,
) -> anyhow::Result<HashMap<String, UserSums>> {
    let until = Instant::now() + COUNTED_WITHIN;
    loop {
        let sums = user_sums(api, traffic).await?;
        let counted: u64 = sums.values().map(|sums| sums.events).sum();
        if counted >= acknowledged || Instant::now() > until {
            return Ok(sums);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn user_sums(api: &mut Api, traffic: &Traffic) -> anyhow::Result<HashMap<String, UserSums>> {
    // Whole days around the run: the server then answers from its summaries.
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let (from, to) = (today.yesterday()?, today.tomorrow()?.tomorrow()?);
    let path = format!(
        "/api/tokens/admin/usage?from={from}&to={to}&granularity=month&group_by=user_id&top=1"
    );
    let usage = api.get(&path, "application/json").await?.json()?;
    let ours: std::collections::HashSet<&str> = traffic.users.iter().map(String::as_str).collect();
    let mut sums = HashMap::<String, UserSums>::new();
    for row in usage["series"].as_array().context("usage without a series")? {
        let user = row["user_id"].as_str().context("a row without a user")?;
        if !ours.contains(user) {
            continue;
        }
        let of = |name: &str| row[name].as_u64().with_context(|| format!("a row without {name}"));
        let sum = sums.entry(user.to_owned()).or_default();
        sum.events += of("events")?;
        sum.prompt_tokens += of("prompt_tokens")?;
        sum.completion_tokens += of("completion_tokens")?;
    }
    Ok(sums)
}
