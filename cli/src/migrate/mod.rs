//! `tokenmeter migrate`: brings the stores up to date, or refuses newer ones.

mod cluster;
mod leaving;

use serde_json::json;
use stores::sqlite::{SqliteEventLog, inspect};

use crate::backend::SingleNode;
use crate::commands::{MigrateArgs, Output};
use crate::context::Context;
use crate::data_dir::{ACCOUNTS, DataDir, LEDGER, LOG};
use crate::output::{Outcome, WrongUse, say_json, say_table};

pub(crate) fn run(context: &Context, args: &MigrateArgs) -> anyhow::Result<Outcome> {
    match &context.settings.cluster {
        Some(settings) => cluster::migrate(context, settings, args),
        None if args.new_log => {
            Err(WrongUse("--new-log is for clusters: a single node's log is its own".into()).into())
        }
        None => single_node(context, &args.output),
    }
}

fn single_node(context: &Context, output: &Output) -> anyhow::Result<Outcome> {
    let directory = DataDir::create(&context.settings.data_dir)?;
    // Opening migrates. A server that runs has migrated before, so nothing changes beneath it.
    drop(SingleNode::accounts(&directory)?);
    drop(SingleNode::ledger(&directory)?);
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
