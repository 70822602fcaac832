//! The four servers: an instance for this test program, and what a test may do to it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Ports of the servers lie below, ports of the program's processes above, up to [`PORTS`].
const SERVER_PORTS: u16 = 40;

/// Ports that one instance uses. All lie below those that the system gives to whoever connects.
const PORTS: u16 = 200;

/// Servers of its own, in a folder of their own. Removed when it is dropped or this process ends.
pub(crate) struct Servers {
    pub(crate) state: PathBuf,
    /// Logs, and the copy of the program that the tests start: another build may replace the original.
    pub(crate) scratch: PathBuf,
    /// What `up` wrote for programs.
    addresses: HashMap<String, String>,
    port_base: u16,
    ports_given: AtomicU16,
    keeper: Child,
    /// Its end is the end of the servers.
    lifeline: Option<ChildStdin>,
}

impl Servers {
    /// Starts them with these options of `deploy/local/up`. Fails the test when one does not come.
    pub(crate) fn start(options: &[&str]) -> Arc<Self> {
        let folder = |prefix| tempfile::Builder::new().prefix(prefix).tempdir().unwrap().keep();
        let (state, scratch) = (folder("tokenmeter-servers-"), folder("tokenmeter-cluster-"));
        std::fs::copy(env!("CARGO_BIN_EXE_tokenmeter"), scratch.join("tokenmeter")).unwrap();
        let port_base = free_ports();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/servers.sh");
        let mut keeper = Command::new(script)
            .args([&state, &scratch])
            .args(["--port-base", &port_base.to_string()])
            .args(options)
            .env_remove("TOKENMETER_LOCAL_PORT_BASE")
            .env_remove("TOKENMETER_LOCAL_STATE")
            // An interrupt from the terminal ends the tests, and by that the servers.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(scratch.join("servers.log")).unwrap())
            .spawn()
            .unwrap();
        let lifeline = keeper.stdin.take();
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let up = std::fs::read_to_string(scratch.join("up.log")).unwrap_or_default();
        assert_eq!(said.trim(), "ready", "the servers do not come up: {up}");
        let addresses = std::fs::read_to_string(state.join("env")).unwrap();
        let addresses = addresses.lines().filter_map(|line| line.split_once('='));
        let addresses =
            addresses.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let ports_given = AtomicU16::new(SERVER_PORTS);
        Arc::new(Self { state, scratch, addresses, port_base, ports_given, keeper, lifeline })
    }

    /// `TOKENMETER_REDIS_URL` and the like.
    pub(crate) fn address(&self, name: &str) -> &str {
        self.addresses.get(name).unwrap_or_else(|| panic!("`up` did not tell {name}"))
    }

    /// A port for a process of the program; nobody else on this machine gets it.
    pub(crate) fn port(&self) -> u16 {
        let given = self.ports_given.fetch_add(1, Ordering::Relaxed);
        let span = PORTS - SERVER_PORTS;
        self.port_base + SERVER_PORTS + (given - SERVER_PORTS) % span
    }

    /// The process of a server: `postgres`, `redis`, `clickhouse`, `kafka-1`, ….
    pub(crate) fn pid(&self, name: &str) -> u32 {
        let path = self.state.join(format!("{name}.pid"));
        std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }

    /// Sends it a signal: `KILL`, `STOP`, `CONT`.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str, signal: &str) {
        send_signal(self.pid(name), signal);
    }

    /// `deploy/local/up` of some servers: starts those that do not run, on their data and ports.
    #[track_caller]
    pub(crate) fn up(&self, arguments: &[&str]) {
        self.run("up", arguments);
    }

    /// `deploy/local/down`, with options such as `--kill` and `--purge`.
    #[track_caller]
    pub(crate) fn down(&self, arguments: &[&str]) {
        self.run("down", arguments);
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/local"));
        let log = File::options().create(true).append(true).open(self.scratch.join("servers.log"));
        let log = log.unwrap();
        let ended = Command::new(folder.join(program))
            .arg("--state")
            .arg(&self.state)
            .args(arguments)
            .env_remove("TOKENMETER_LOCAL_PORT_BASE")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status();
        let said = || std::fs::read_to_string(self.scratch.join("servers.log")).unwrap_or_default();
        assert!(ended.unwrap().success(), "{program} {arguments:?}: {}", said());
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        drop(self.keeper.wait());
    }
}

/// `kill -SIGNAL PID`.
#[track_caller]
pub(crate) fn send_signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success(), "no signal {signal} to {pid}");
}

/// The first of [`PORTS`] ports of which none is in use, and that no other instance was given.
fn free_ports() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 50).unwrap();
    let tries = (0..50).map(|_| TRIED.fetch_add(1, Ordering::Relaxed));
    let bases = tries.map(|next| 20_000 + (process + next) % 50 * PORTS);
    let mut free = bases.filter(|base| {
        (*base..base + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    });
    free.next().expect("no free ports")
}

/// The instance that the scenarios of this program share.
fn shared() -> Arc<Servers> {
    static SHARED: OnceLock<Arc<Servers>> = OnceLock::new();
    if !cfg!(feature = "failpoints") {
        panic!("run these tests with `--features failpoints`");
    }
    SHARED.get_or_init(|| Servers::start(&[])).clone()
}

/// Who may do something to the shared servers: nobody, while others work with them.
static TURNS: RwLock<()> = RwLock::new(());

/// The right to use the shared servers.
pub(crate) enum Turn {
    /// Beside others: the servers are left alone.
    Beside(#[allow(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    /// Alone: the servers may be killed.
    Alone(#[allow(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// The shared servers, for a scenario that leaves them alone.
pub(crate) fn beside_others() -> (Arc<Servers>, Turn) {
    let turn = TURNS.read().unwrap_or_else(PoisonError::into_inner);
    (shared(), Turn::Beside(turn))
}

/// The shared servers, for a scenario that kills them. It leaves them running.
pub(crate) fn alone() -> (Arc<Servers>, Turn) {
    let turn = TURNS.write().unwrap_or_else(PoisonError::into_inner);
    (shared(), Turn::Alone(turn))
}
