//! What the server says once it listens: where things are, and what to try next.

use std::net::SocketAddr;

use crate::context::Context;
use crate::data_dir::RunningServer;
use crate::output::say;

pub(super) fn print(context: &Context, running: &RunningServer) {
    let (api, ops) = (reachable(running.listen), reachable(running.ops_listen));
    let data = &context.settings.data_dir;
    let data = data.canonicalize().unwrap_or_else(|_| data.clone());
    say(format!("tokenmeter {} is running", env!("CARGO_PKG_VERSION")));
    say(format!("  API         http://{api}"));
    say(format!("  operations  http://{ops}/metrics, /health/ready"));
    say(format!("  data        {}", data.display()));
    say("Next, in another terminal:");
    say(format!(
        "  curl -sS http://{api}/api/auth/register -H 'content-type: application/json' \\\n    \
         -d '{{\"name\":\"Ada\",\"email\":\"ada@example.org\",\"password\":\"correct horse\"}}'"
    ));
    // The command line finds the server by its data directory.
    let shown = context.settings.data_dir.display();
    say(format!(
        "  tokenmeter --data-dir {shown} key create --name my-service --scope \
         ingest,users,usage:read"
    ));
}

/// What to connect to when the server listens on every address.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::from(([127, 0, 0, 1], address.port()));
    }
    address
}
