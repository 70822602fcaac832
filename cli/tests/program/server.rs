//! The program in a directory of its own, as a server and by its command line.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::http::Http;

/// Longer than anything takes on a busy machine; a condition that never comes fails then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `probe` finds something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never came true that {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A directory for one test, and the program on it.
pub(crate) struct Installation {
    directory: TempDir,
    beneath_file_limits: bool,
}

impl Installation {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), beneath_file_limits: false }
    }

    /// One whose processes meet a limit on the size of files as a write that fails, as on a full
    /// disk: by default it would end them.
    pub(crate) fn beneath_file_limits() -> Self {
        Self { beneath_file_limits: true, ..Self::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The program with these arguments, on this installation's data.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_tokenmeter");
        let mut command = Command::new(if self.beneath_file_limits { "bash" } else { program });
        if self.beneath_file_limits {
            // What the shell ignores, the program it turns into ignores too.
            command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", program]);
        }
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.to_string_lossy().starts_with("TOKENMETER_")) {
            command.env_remove(name);
        }
        command.args(arguments).env("TOKENMETER_DATA_DIR", self.data_dir()).stdin(Stdio::null());
        command.current_dir(self.path());
        command
    }

    /// What it printed once it ended; killed when it does not.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id().to_string();
        let (ended, ending) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::spawn(move || {
            let output = child.wait_with_output();
            drop(ended);
            output
        });
        // Nothing is ever sent: the end of the channel is the end of the process.
        if ending.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            drop(Command::new("kill").args(["-KILL", &pid]).status());
            panic!("{arguments:?} does not end");
        }
        waiting.join().unwrap().unwrap()
    }

    /// What it prints with `--json`, when it ends with success.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}{complained}");
        serde_json::from_str(&said).unwrap()
    }

    /// A new API key.
    #[track_caller]
    pub(crate) fn key(&self, scopes: &str) -> String {
        let made = self.json(&["key", "create", "--name", "test", "--scope", scopes]);
        made["api_key"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn start(&self) -> Server {
        self.start_with(&[])
    }

    #[track_caller]
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Server {
        let mut server = self.spawn(arguments);
        let found = eventually("the server listens", || {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended with {status}: {}", server.log());
            }
            let text = std::fs::read_to_string(self.data_dir().join("server.json")).ok()?;
            let found: Value = serde_json::from_str(&text).unwrap();
            (found["pid"] == server.child.id()).then_some(found)
        });
        let url = |name: &str| format!("http://{}", found[name].as_str().unwrap());
        server.http = Http::new(&url("listen"));
        server.ops = Http::new(&url("ops_listen"));
        let ops = server.ops.clone();
        eventually("the server is ready", || {
            (ops.get("/health/ready").status == 200).then_some(())
        });
        server
    }

    /// Kills it while it starts: the moment is drawn, nothing is waited for.
    pub(crate) fn start_and_kill(&self, after: Duration) {
        let mut server = self.spawn(&[]);
        std::thread::park_timeout(after);
        server.kill();
    }

    fn spawn(&self, arguments: &[&str]) -> Server {
        let log = self.path().join("log");
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let stdout = File::options().create(true).append(true).open(&log).unwrap();
        let child = self
            .command(&["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        Server { child, log, http: Http::new(""), ops: Http::new("") }
    }
}

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    pub(crate) http: Http,
    pub(crate) ops: Http,
}

impl Server {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    #[track_caller]
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        eventually("the server ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
