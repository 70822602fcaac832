//! A cluster whose servers speak TLS alone and ask for passwords: the program goes the whole way over it,
//! and believes nobody else. Needs `--features tls`; the servers are `deploy/local/up --tls`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "fixtures are test code, though they stand outside of the test functions"
)]

#[path = "../program/http.rs"]
#[allow(dead_code, reason = "other tests call more")]
mod http;
#[path = "../cluster/servers.rs"]
#[allow(dead_code, reason = "other tests do more to the servers")]
mod servers;
#[path = "../cluster/waiting.rs"]
mod waiting;

use std::fs::File;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use http::Http;
use serde_json::Value;
use servers::Servers;
use waiting::eventually;

/// Rows of the trace below.
const ROWS: u64 = 400;
const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/small-trace.csv");

/// What clients of the servers are told in their environment.
const ACCESS: [&str; 6] = [
    "TOKENMETER_KAFKA_BROKERS",
    "TOKENMETER_KAFKA_OPTION",
    "TOKENMETER_REDIS_URL",
    "TOKENMETER_CLICKHOUSE_URL",
    "TOKENMETER_POSTGRES_URL",
    "SSL_CERT_FILE",
];

struct Installation {
    servers: Arc<Servers>,
}

impl Installation {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.servers.scratch.join("tokenmeter"));
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.to_string_lossy().starts_with("TOKENMETER_")) {
            command.env_remove(name);
        }
        command.args(arguments).envs(ACCESS.map(|name| (name, self.servers.address(name))));
        command.stdin(Stdio::null()).current_dir(&self.servers.scratch);
        command
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What `doctor` says of a server, when one thing is not as it should be.
    #[track_caller]
    fn refused(&self, (name, value): (&str, &str)) -> String {
        let output = self.command(&["doctor"]).env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn everything_goes_over_tls_and_who_is_not_vouched_for_is_not_believed() {
    let installation = Installation { servers: Servers::start(&["--tls"]) };
    installation.json(&["migrate", "--kafka-partitions", "4"]);
    let healthy = installation.json(&["doctor"]);
    assert_eq!(healthy["ok"], true, "{healthy}");

    let port = || format!("127.0.0.1:{}", installation.servers.port());
    let (listen, ops_listen) = (port(), port());
    let log = File::create(installation.servers.scratch.join("server.log")).unwrap();
    let mut command = installation.command(&["--listen", &listen, "--ops-listen", &ops_listen]);
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let _server = Server(command.spawn().unwrap());
    let ops = Http::new(&format!("http://{ops_listen}"));
    eventually("the server is ready", || {
        let answer = ops.try_call("GET", "/health/ready", None).ok()?;
        (answer.status == 200).then_some(())
    });
    let url = format!("http://{listen}");
    let replayed = installation.json(&["replay", TRACE, "--users", "5", "--url", &url]);
    assert_eq!(replayed["accepted"], ROWS, "{replayed}");
    eventually("all of it is counted", || {
        let counted = format!("tokenmeter_events_total{{outcome=\"counted\"}} {ROWS}\n");
        ops.get("/metrics").text.contains(&counted).then_some(())
    });
    assert_eq!(installation.json(&["reconcile"])["balanced"], true);

    // The webhook believes whom the rest believes. ClickHouse answers 200 there.
    let ping = format!("{}/ping", installation.servers.address("TOKENMETER_CLICKHOUSE_URL"));
    let secret = installation.servers.scratch.join("secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let secret = secret.to_str().unwrap();
    let test = ["alerts", "test", "--alert-webhook", &ping, "--alert-webhook-secret-file", secret];
    assert_eq!(installation.json(&test)["taken"], true);
    let doubted = installation.command(&test).env("SSL_CERT_FILE", "/dev/null").output().unwrap();
    assert_eq!(doubted.status.code(), Some(1));
    assert!(said(&doubted).contains("invalid peer certificate"), "{}", said(&doubted));

    let doubted = installation.refused(("SSL_CERT_FILE", "/dev/null"));
    for server in ["Postgres", "ClickHouse", "Redis"] {
        let line = doubted.lines().find(|line| line.starts_with(&format!("FAIL {server}:")));
        assert!(line.is_some_and(|line| line.contains("certificate")), "{server}: {doubted}");
    }
    let option = installation.servers.address("TOKENMETER_KAFKA_OPTION");
    let authority = installation.servers.address("SSL_CERT_FILE");
    let doubted = option.replace(authority, "/etc/ssl/certs/ca-certificates.crt");
    let doubted = installation.refused(("TOKENMETER_KAFKA_OPTION", &doubted));
    assert!(doubted.contains("broker certificate could not be verified"), "{doubted}");
    let stranger = option.replace("sasl.password=", "sasl.password=not-");
    let shut_out = installation.refused(("TOKENMETER_KAFKA_OPTION", &stranger));
    assert!(shut_out.contains("Authentication failed"), "{shut_out}");
}
