//! A Redis of one test: to be killed, emptied, promoted.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Listens on a socket in a folder of its own; ends with the test.
pub(crate) struct OwnServer {
    folder: TempDir,
    process: Child,
}

impl OwnServer {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = spawn(&folder);
        let server = Self { folder, process };
        server.wait_until_it_answers();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    pub(crate) fn run(&self, command: &[&str]) {
        let mut asked = redis::cmd(command[0]);
        for argument in &command[1..] {
            asked.arg(argument);
        }
        asked.exec(&mut self.connection()).unwrap();
    }

    /// Dies at once, and comes back with what it had last saved.
    pub(crate) fn kill_and_start(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_file(self.socket()).unwrap();
        self.process = spawn(&self.folder);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let client = redis::Client::open(self.url()).unwrap();
            let answer = client.get_connection().and_then(|mut c| redis::cmd("PING").exec(&mut c));
            match answer {
                Ok(()) => return,
                Err(error) => assert!(Instant::now() < deadline, "redis-server: {error}"),
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.process.kill().unwrap_or_default();
        drop(self.process.wait());
    }
}

fn spawn(folder: &TempDir) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
    command.arg(folder.path().join("socket")).arg("--dir").arg(folder.path());
    command.stdout(Stdio::null()).spawn().unwrap()
}
