//! `tokenmeter migrate`: brings the files of the data directory up to date, or refuses newer ones.

use serde_json::json;
use stores::sqlite::{SqliteEventLog, inspect};

use crate::commands::Output;
use crate::context::Context;
use crate::data_dir::{ACCOUNTS, DataDir, LEDGER, LOG};
use crate::output::{Outcome, say_json, say_table};

pub(crate) fn run(context: &Context, output: &Output) -> anyhow::Result<Outcome> {
    let directory = DataDir::create(&context.settings.data_dir)?;
    // Opening migrates. A server that runs has migrated before, so nothing changes beneath it.
    drop(context.accounts()?);
    drop(context.ledger()?);
    drop(SqliteEventLog::open(&directory.file(LOG), context.clock.clone())?);
    let files = [LOG, LEDGER, ACCOUNTS].map(|name| {
        let inspected = inspect(&directory.file(name))?;
        Ok((name, inspected.schema))
    });
    let files = files.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    if output.json {
        let file = |(name, schema): &(&str, u32)| json!({"file": name, "schema": schema});
        say_json(&json!({"files": files.iter().map(file).collect::<Vec<_>>()}))?;
    } else {
        let row = |(name, schema): &(&str, u32)| vec![(*name).to_owned(), schema.to_string()];
        say_table(&["file", "schema"], &files.iter().map(row).collect::<Vec<_>>());
    }
    Ok(Outcome::Success)
}
