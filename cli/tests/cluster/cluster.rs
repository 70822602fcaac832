//! An installation of its own on the servers, and processes of the program on it.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::http::Http;
use crate::servers::{self, Servers, Turn, send_signal};
use crate::stores;
use crate::waiting::eventually;

/// Of each installation's topic.
pub(crate) const PARTITIONS: i32 = 4;

/// Lines of each process's log that a failed test shows.
const LINES_SHOWN: usize = 40;

/// Databases, a topic and the counters of one installation.
pub(crate) struct Cluster {
    pub(crate) servers: Arc<Servers>,
    pub(crate) topic: String,
    pub(crate) postgres_url: String,
    pub(crate) clickhouse_url: String,
    pub(crate) kafka_brokers: String,
    /// With scope `admin`.
    pub(crate) key: String,
    folder: PathBuf,
    settings: Vec<(String, String)>,
    _turn: Option<Turn>,
}

impl Cluster {
    /// On the shared servers, beside others.
    pub(crate) fn beside_others() -> Self {
        let (servers, turn) = servers::beside_others();
        Self::on(servers, Some(turn))
    }

    /// On the shared servers, which nobody else uses meanwhile.
    pub(crate) fn alone() -> Self {
        let (servers, turn) = servers::alone();
        Self::on(servers, Some(turn))
    }

    /// On these servers.
    pub(crate) fn on(servers: Arc<Servers>, turn: Option<Turn>) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("tokenmeter_{number}");
        let postgres = servers.address("TOKENMETER_POSTGRES_URL");
        stores::postgres_run(postgres, &format!("CREATE DATABASE {name}"));
        let postgres_url = format!("{}/{name}", postgres.rsplit_once('/').unwrap().0);
        let clickhouse = servers.address("TOKENMETER_CLICKHOUSE_URL");
        stores::clickhouse(clickhouse, &format!("CREATE DATABASE {name}"));
        let clickhouse_url = format!("{clickhouse}/?database={name}");
        let (redis, database) = (servers.address("TOKENMETER_REDIS_URL"), number % 16);
        stores::redis_flush(redis, database);
        let kafka_brokers = servers.address("TOKENMETER_KAFKA_BROKERS").to_owned();
        let topic = format!("usage-events.{number}");
        let settings = [
            ("KAFKA_BROKERS", kafka_brokers.clone()),
            ("KAFKA_TOPIC", topic.clone()),
            ("KAFKA_PARTITIONS", PARTITIONS.to_string()),
            ("REDIS_URL", format!("{}/{database}", redis.trim_end_matches('/'))),
            ("CLICKHOUSE_URL", clickhouse_url.clone()),
            ("POSTGRES_URL", postgres_url.clone()),
            ("ON_COUNTER_OUTAGE", "refuse".to_owned()),
            ("LOG_FORMAT", "text".to_owned()),
        ];
        let settings = settings.map(|(name, value)| (format!("TOKENMETER_{name}"), value)).to_vec();
        let folder = servers.scratch.join(&name);
        std::fs::create_dir(&folder).unwrap();
        let mut cluster = Self {
            servers,
            topic,
            postgres_url,
            clickhouse_url,
            kafka_brokers,
            key: String::new(),
            folder,
            settings,
            _turn: turn,
        };
        cluster.json(&["migrate"]);
        let key = cluster.json(&["key", "create", "--name", "test", "--scope", "admin"]);
        key["api_key"].as_str().unwrap().clone_into(&mut cluster.key);
        cluster
    }

    /// Processes that start from now on have another value of a setting: `REDIS_URL`.
    pub(crate) fn change(&mut self, name: &str, value: &str) {
        let name = format!("TOKENMETER_{name}");
        let setting = self.settings.iter_mut().find(|(known, _)| *known == name).unwrap();
        value.clone_into(&mut setting.1);
    }

    /// Processes that start from now on have one setting more.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.settings.push((format!("TOKENMETER_{name}"), value.to_owned()));
    }

    /// What a process of now is told: `REDIS_URL`.
    pub(crate) fn setting(&self, name: &str) -> &str {
        let name = format!("TOKENMETER_{name}");
        &self.settings.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// The program with these arguments, on this installation.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.servers.scratch.join("tokenmeter"));
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.to_string_lossy().starts_with("TOKENMETER_")) {
            command.env_remove(name);
        }
        command.args(arguments).envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.env_remove("FAILPOINTS").stdin(Stdio::null()).current_dir(&self.folder);
        command
    }

    /// What it printed once it ended. The program has deadlines for all that it asks of servers.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it prints with `--json`, when it ends with success.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}{complained}");
        serde_json::from_str(&said).unwrap()
    }

    /// A file in the installation's folder, gone with it.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.join(name);
        File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
        path
    }

    /// A process of its own with these roles, once it listens.
    #[track_caller]
    pub(crate) fn start(&self, name: &str, roles: &str) -> Process {
        self.start_with(name, roles, "")
    }

    /// The same with failpoints, as the crate `fail` has them: `ledger::raw=20*off->return`.
    #[track_caller]
    pub(crate) fn start_with(&self, name: &str, roles: &str, failpoints: &str) -> Process {
        self.begin(name, roles, failpoints).listens()
    }

    /// The same, whether it gets to listen or not.
    pub(crate) fn begin(&self, name: &str, roles: &str, failpoints: &str) -> Process {
        let (listen, ops) = (self.servers.port(), self.servers.port());
        let url = |port: u16| Http::new(&format!("http://127.0.0.1:{port}"));
        Process {
            child: self.spawn(name, roles, failpoints, [listen, ops]),
            name: name.to_owned(),
            roles: roles.to_owned(),
            ports: [listen, ops],
            log: self.log_of(name),
            logged_before: 0,
            http: url(listen).with_bearer(&self.key),
            ops: url(ops),
        }
    }

    /// A process that has ended, again: on the same ports, once it listens.
    #[track_caller]
    pub(crate) fn restart(&self, process: Process, failpoints: &str) -> Process {
        let mut process = process;
        process.kill();
        process.logged_before = process.whole_log().len();
        process.child = self.spawn(&process.name, &process.roles, failpoints, process.ports);
        process.listens()
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn spawn(&self, name: &str, roles: &str, failpoints: &str, ports: [u16; 2]) -> Child {
        let log = File::options().create(true).append(true).open(self.log_of(name)).unwrap();
        let [listen, ops] = ports.map(|port| format!("127.0.0.1:{port}"));
        let mut command = self.command(&["--role", roles, "--listen", &listen]);
        command.args(["--ops-listen", &ops, "--kafka-session-timeout", "2s"]);
        if !failpoints.is_empty() {
            command.env("FAILPOINTS", failpoints);
        }
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// Two ingests, two aggregators and the api, ready.
    #[track_caller]
    pub(crate) fn serve(&self) -> Serving {
        let serving = Serving {
            api: self.start("api", "api"),
            ingests: ["ingest-1", "ingest-2"].map(|name| self.start(name, "ingest")).into(),
            aggregators: ["aggregator-1", "aggregator-2"]
                .map(|name| self.start(name, "aggregator"))
                .into(),
        };
        serving.is_ready();
        serving
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            println!("---- {}\n{}", entry.path().display(), shown.join("\n"));
        }
    }
}

/// The processes of an installation.
pub(crate) struct Serving {
    pub(crate) api: Process,
    pub(crate) ingests: Vec<Process>,
    pub(crate) aggregators: Vec<Process>,
}

impl Serving {
    /// Waits until every process is ready: admissions to all partitions are open.
    #[track_caller]
    pub(crate) fn is_ready(&self) {
        for process in [&self.api].into_iter().chain(&self.ingests).chain(&self.aggregators) {
            process.is_ready();
        }
    }
}

/// A running process; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
    roles: String,
    ports: [u16; 2],
    log: PathBuf,
    /// What earlier processes of this name wrote.
    logged_before: usize,
    /// For clients, with the admin's key.
    pub(crate) http: Http,
    /// For operators.
    pub(crate) ops: Http,
}

impl Process {
    /// Waits until it listens.
    #[track_caller]
    pub(crate) fn listens(mut self) -> Self {
        eventually(&format!("{} listens", self.name), || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status}: {}", self.name, self.log());
            }
            self.ops.try_call("GET", "/health/live", None).ok()
        });
        self
    }

    /// Waits until it is ready.
    #[track_caller]
    pub(crate) fn is_ready(&self) {
        eventually(&format!("{} is ready", self.name), || {
            let answer = self.ops.try_call("GET", "/health/ready", None).ok()?;
            (answer.status == 200).then_some(())
        });
    }

    fn whole_log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What this process wrote.
    pub(crate) fn log(&self) -> String {
        self.whole_log().split_off(self.logged_before)
    }

    /// Waits until it has come to a failpoint, and stays there.
    #[track_caller]
    pub(crate) fn stopped_at(&self, failpoint: &str) {
        let line = format!("failpoint {failpoint} reached");
        eventually(&line, || self.log().contains(&line).then_some(()));
    }

    /// Sends it a signal: `STOP`, `CONT`.
    #[track_caller]
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.child.id(), signal);
    }

    /// `kill -9`; nothing when it has ended.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    #[track_caller]
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        eventually("it ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
