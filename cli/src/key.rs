//! `tokenmeter key`: credentials of services.

use anyhow::Context as _;
use api::accounts::{CreateKeyError, create_key};
use metering::accounts::{ApiKey, ApiKeyId, Scope, Scopes};
use serde_json::{Value, json};

use crate::commands::{KeyCommand, KeyCreateArgs, KeyRevokeArgs, Output};
use crate::context::Context;
use crate::output::{Outcome, WrongUse, complain, say, say_json, say_table};

pub(crate) fn run(context: &Context, command: &KeyCommand) -> anyhow::Result<Outcome> {
    match command {
        KeyCommand::Create(args) => create(context, args),
        KeyCommand::List(output) => list(context, output),
        KeyCommand::Revoke(args) => revoke(context, args),
    }
}

fn create(context: &Context, args: &KeyCreateArgs) -> anyhow::Result<Outcome> {
    let scopes = args.scope.iter().copied().collect();
    let (id, api_key) = make(context, &args.name, scopes)?;
    if args.output.json {
        say_json(&json!({"id": id.0, "api_key": api_key}))?;
    } else {
        say(api_key);
        complain(format!("Key {id}, shown this once; send it as `Authorization: Bearer …`."));
    }
    Ok(Outcome::Success)
}

/// Makes a key that is valid until it is revoked: its id, and the text that is never seen again.
fn make(context: &Context, name: &str, scopes: Scopes) -> anyhow::Result<(ApiKeyId, String)> {
    let accounts = context.accounts()?;
    let made = create_key(&*accounts.api_keys, name, scopes, None, context.clock.now());
    match context.block_on(made) {
        Ok((key, text)) => Ok((key.id, text)),
        Err(CreateKeyError::Invalid(wrong)) => Err(WrongUse(format!("--{wrong}")).into()),
        Err(CreateKeyError::Unavailable(error)) => Err(error).context("the key cannot be made"),
    }
}

fn list(context: &Context, output: &Output) -> anyhow::Result<Outcome> {
    let keys = context.block_on(context.accounts()?.api_keys.list())?;
    let scopes = |key: &ApiKey| key.scopes.iter().map(Scope::as_str).collect::<Vec<_>>();
    if output.json {
        let shown = |key: &ApiKey| -> Value {
            json!({
                "id": key.id.0,
                "name": key.name,
                "scopes": scopes(key),
                "created_at": key.created_at,
                "expires_at": key.expires_at,
                "revoked_at": key.revoked_at,
            })
        };
        say_json(&json!({"keys": keys.iter().map(shown).collect::<Vec<_>>()}))?;
    } else {
        let row = |key: &ApiKey| {
            let revoked = key.revoked_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
            let created = key.created_at.to_string();
            vec![key.id.to_string(), key.name.clone(), scopes(key).join(","), created, revoked]
        };
        let rows: Vec<_> = keys.iter().map(row).collect();
        say_table(&["id", "name", "scopes", "created", "revoked"], &rows);
    }
    Ok(Outcome::Success)
}

fn revoke(context: &Context, args: &KeyRevokeArgs) -> anyhow::Result<Outcome> {
    let id = ApiKeyId(args.id.clone());
    let revoked =
        context.block_on(context.accounts()?.api_keys.revoke(&id, context.clock.now()))?;
    if args.output.json {
        say_json(&json!({"id": id.0, "revoked": revoked}))?;
    } else if revoked {
        say(format!("Key {id} is refused from now on."));
    } else {
        complain(format!("There is no key {id}, or it was revoked before."));
    }
    Ok(Outcome::of(revoked))
}

/// A key for one command's own requests.
pub(crate) struct TemporaryKey<'a> {
    pub(crate) secret: String,
    made: Option<(ApiKeyId, &'a Context)>,
}

impl<'a> TemporaryKey<'a> {
    /// One that the caller brought: it stays as it is.
    pub(crate) const fn given(secret: String) -> Self {
        Self { secret, made: None }
    }

    /// A new one beside the local data directory.
    pub(crate) fn make(context: &'a Context, name: &str, scopes: Scopes) -> anyhow::Result<Self> {
        let (id, secret) = make(context, name, scopes)?;
        Ok(Self { secret, made: Some((id, context)) })
    }
}

impl Drop for TemporaryKey<'_> {
    /// A key that cannot be revoked now is in `key list`, under its name.
    fn drop(&mut self) {
        if let Some((id, context)) = &self.made
            && let Ok(accounts) = context.accounts()
        {
            drop(context.block_on(accounts.api_keys.revoke(id, context.clock.now())));
        }
    }
}
