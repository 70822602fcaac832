//! What the server says once it listens: where things are, and what to try next.

use std::net::SocketAddr;

use crate::context::Context;
use crate::data_dir::RunningServer;
use crate::output::say;

pub(super) fn print(context: &Context, running: &RunningServer) {
    let (api, ops) = (reachable(running.listen), reachable(running.ops_listen));
    say(format!("tokenmeter {} is running", env!("CARGO_PKG_VERSION")));
    say(format!("  API         http://{api}"));
    say(format!("  operations  http://{ops}/metrics, /health/ready"));
    match &context.settings.cluster {
        Some(cluster) => {
            say(format!("  event log   {} ({})", cluster.kafka_brokers, cluster.topic));
        }
        None => {
            let data = &context.settings.data_dir;
            let data = data.canonicalize().unwrap_or_else(|_| data.clone());
            say(format!("  data        {}", data.display()));
        }
    }
    say("Next, in another terminal:");
    say(format!(
        "  curl -sS http://{api}/api/auth/register -H 'content-type: application/json' \\\n    \
         -d '{{\"name\":\"Ada\",\"email\":\"ada@example.org\",\"password\":\"correct horse\"}}'"
    ));
    // The command line finds a single node by its data directory, and the servers of a cluster by the
    // settings that this process was started with.
    let place = match context.settings.cluster {
        Some(_) => String::new(),
        None => format!("--data-dir {} ", context.settings.data_dir.display()),
    };
    say(format!(
        "  tokenmeter {place}key create --name my-service --scope ingest,users,usage:read"
    ));
}

/// What to connect to when the server listens on every address.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::from(([127, 0, 0, 1], address.port()));
    }
    address
}
