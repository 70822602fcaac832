//! The data directory: its lock, its files, and where the server on it listens.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// How long a starting server waits for the lock: a command that only looks whether it is held
/// holds it for a moment itself.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// The event log.
pub(crate) const LOG: &str = "log.db";
/// What was counted.
pub(crate) const LEDGER: &str = "ledger.db";
/// Users, keys, subscriptions.
pub(crate) const ACCOUNTS: &str = "accounts.db";

/// Where everything of a single node is kept.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
}

/// Held by the server as long as it lives; the system lets go of it even after kill -9.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Where a running server is found: `server.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningServer {
    pub(crate) listen: SocketAddr,
    pub(crate) ops_listen: SocketAddr,
    pub(crate) pid: u32,
}

impl DataDir {
    /// The directory at `path`, made when it is missing; only its owner may enter.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(path)
            .with_context(|| format!("the data directory {} cannot be made", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }

    /// The directory at `path`, which some server or command made before.
    pub(crate) fn existing(path: &Path) -> anyhow::Result<Self> {
        let exists = path.is_dir();
        anyhow::ensure!(
            exists,
            "there is no data directory {}: start `tokenmeter` first, or name another with \
             --data-dir",
            path.display()
        );
        Ok(Self { path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn lock_file(&self) -> anyhow::Result<File> {
        let path = self.file("lock");
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("{} cannot be opened", path.display()))
    }

    /// Takes the lock for a server.
    pub(crate) fn lock(&self) -> anyhow::Result<Lock> {
        let file = self.lock_file()?;
        let patience = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    let running = self.written_server();
                    let by = running.map_or_else(String::new, |server| {
                        format!(" (process {}, http://{})", server.pid, server.listen)
                    });
                    anyhow::bail!(
                        "another tokenmeter{by} uses the data directory {}: stop it, or name \
                         another directory with --data-dir",
                        self.path.display()
                    );
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).context("the data directory cannot be locked");
                }
            }
        }
    }

    /// The server that runs on this directory now.
    pub(crate) fn running_server(&self) -> anyhow::Result<Option<RunningServer>> {
        match self.lock_file()?.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Ok(self.written_server()),
            Ok(()) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).context("the lock of the data directory cannot be tried")
            }
        }
    }

    /// What the last server wrote; it may be gone.
    fn written_server(&self) -> Option<RunningServer> {
        let text = std::fs::read_to_string(self.file("server.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Says where the server listens: readers see the old file or the new one, never a part.
    pub(crate) fn write_server(&self, server: &RunningServer) -> anyhow::Result<()> {
        let fresh = self.file("server.json.new");
        let text = serde_json::to_string_pretty(server)?;
        std::fs::write(&fresh, text)
            .with_context(|| format!("cannot write {}", fresh.display()))?;
        std::fs::rename(&fresh, self.file("server.json")).context("cannot write server.json")
    }

    /// Takes it back; after kill -9 it stays, and the lock tells that nobody is there.
    pub(crate) fn remove_server(&self) {
        drop(std::fs::remove_file(self.file("server.json")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> RunningServer {
        let listen = SocketAddr::from(([127, 0, 0, 1], 80));
        RunningServer { listen, ops_listen: listen, pid: 7 }
    }

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = DataDir::create(&temporary.path().join("a/b")).unwrap();
        let lock = directory.lock().unwrap();
        directory.write_server(&server()).unwrap();
        let refusal = directory.lock().unwrap_err().to_string();
        assert!(refusal.contains("process 7"), "{refusal}");
        assert_eq!(directory.running_server().unwrap(), Some(server()));
        drop(lock);
        assert!(directory.lock().is_ok());
    }

    #[test]
    fn what_a_killed_server_wrote_is_not_believed() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = DataDir::create(temporary.path()).unwrap();
        directory.write_server(&server()).unwrap();
        assert_eq!(directory.running_server().unwrap(), None);
    }
}
