//! `tokenmeter doctor`: data and server, or each server of the cluster, and what the system allows.
//! Settings were checked before.

mod cluster;

use std::net::TcpListener;

use serde::Serialize;
use serde_json::json;
use stores::sqlite::inspect;

use crate::commands::Output;
use crate::context::Context;
use crate::data_dir::{ACCOUNTS, DataDir, LEDGER, LOG, RunningServer};
use crate::ops_client;
use crate::output::{Outcome, say, say_json};

#[derive(Serialize)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
}

impl Check {
    fn new(name: impl Into<String>, found: Result<String, String>) -> Self {
        let (ok, detail) = match found {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        Self { name: name.into(), ok, detail }
    }
}

pub(crate) fn run(context: &Context, output: &Output) -> anyhow::Result<Outcome> {
    let mut checks = match &context.settings.cluster {
        Some(settings) => context.block_on(cluster::checks(context, settings)),
        None => single_node(context)?,
    };
    checks.push(file_handles(context));
    let good = checks.iter().all(|check| check.ok);
    if output.json {
        say_json(&json!({"ok": good, "checks": checks}))?;
    } else {
        for Check { name, ok, detail } in &checks {
            say(format!("{} {name}: {detail}", if *ok { "ok  " } else { "FAIL" }));
        }
    }
    Ok(Outcome::of(good))
}

fn single_node(context: &Context) -> anyhow::Result<Vec<Check>> {
    let mut checks = Vec::new();
    let path = &context.settings.data_dir;
    match DataDir::existing(path) {
        Err(_) => {
            let detail = format!("{} is made at the first start", path.display());
            checks.push(Check::new("data directory", Ok(detail)));
            checks.extend(addresses(context));
        }
        Ok(directory) => {
            checks.push(Check::new("data directory", Ok(path.display().to_string())));
            checks.extend([LOG, LEDGER, ACCOUNTS].map(|name| file(&directory, name)));
            match directory.running_server()? {
                Some(server) => checks.push(running(&server)),
                None => checks.extend(addresses(context)),
            }
        }
    }
    Ok(checks)
}

fn file(directory: &DataDir, name: &str) -> Check {
    let path = directory.file(name);
    if !path.exists() {
        return Check::new(name, Ok("is made at the next start".to_owned()));
    }
    let found = match inspect(&path) {
        Ok(inspected) => match inspected.damage {
            None => Ok(format!("whole, schema {}", inspected.schema)),
            Some(damage) => Err(format!("damaged: {damage}; restore a backup")),
        },
        Err(error) => Err(error.to_string()),
    };
    Check::new(name, found)
}

fn running(server: &RunningServer) -> Check {
    let asked = ops_client::get(server, "/health/ready");
    let name = format!("server (process {})", server.pid);
    let found = asked.map_err(|error| format!("{error:#}")).and_then(|report| {
        let degraded = report["degraded"].to_string();
        if report["ready"] != true {
            return Err(format!("not ready: {}", report["checks"]));
        }
        let note = if degraded == "[]" { String::new() } else { format!(", degraded: {degraded}") };
        Ok(format!("ready at http://{}{note}", server.listen))
    });
    Check::new(name, found)
}

/// Whether the server could listen; the ports are free again at once.
fn addresses(context: &Context) -> Vec<Check> {
    let settings = &context.settings;
    let both = [("listen", settings.listen), ("ops-listen", settings.ops_listen)];
    let check = |(name, address)| {
        let bound = TcpListener::bind(address).map(|_| format!("{address} is free"));
        Check::new(name, bound.map_err(|error| format!("{address}: {error}; see --{name}")))
    };
    both.map(check).into()
}

/// Every connection is a file handle; without enough of them new ones are not accepted.
fn file_handles(context: &Context) -> Check {
    const SPARE: usize = 64;
    let wanted = context.settings.max_connections.saturating_add(SPARE);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|rest| rest.split_whitespace().next());
    let detail = match soft.map(str::parse::<usize>) {
        Some(Ok(allowed)) if allowed < wanted => format!(
            "{allowed} are allowed, so about {} connections; more wait. `ulimit -n {wanted}` \
             allows what --max-connections says",
            allowed.saturating_sub(SPARE)
        ),
        Some(Ok(allowed)) => format!("{allowed} are allowed"),
        Some(Err(_)) | None => "not known on this system".to_owned(),
    };
    Check::new("file handles", Ok(detail))
}
