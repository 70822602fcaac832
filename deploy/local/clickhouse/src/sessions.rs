//! A bounded set of engine connections, each request alone on one of them.
//!
//! A connection remembers the database and the settings it was last given; a request gets one that
//! fits already where there is one, and otherwise the difference is set before its statement runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::engine::{Answer, Connection, Engine};
use crate::request::DataFile;
use crate::statement::verb;

/// What a request asks for besides its statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// `None`: the database `default`.
    pub database: Option<String>,
    /// Settings of the engine, by name.
    pub settings: BTreeMap<String, String>,
}

/// One statement, ready to run.
pub struct Statement {
    pub sql: Vec<u8>,
    pub format: String,
    pub parameters: Vec<(String, String)>,
    pub session: Session,
    /// The file the statement reads: it lives until the statement has ended, even when the client
    /// went away and nobody waits for the answer.
    pub data: Option<DataFile>,
}

/// The connections.
pub struct Sessions {
    engine: Arc<Engine>,
    idle: Mutex<Vec<Idle>>,
    slots: Arc<Semaphore>,
    connections: usize,
}

struct Idle {
    connection: Connection,
    session: Session,
}

impl Sessions {
    /// Starts the engine with a first connection; at most `connections` statements run at once.
    pub fn open(engine: Arc<Engine>, connections: usize) -> Result<Self, String> {
        let first = Idle { connection: engine.connect()?, session: Session::default() };
        Ok(Self {
            engine,
            idle: Mutex::new(vec![first]),
            slots: Arc::new(Semaphore::new(connections)),
            connections,
        })
    }

    /// Waits for a free connection and runs the statement on a thread that may block.
    pub async fn run(self: &Arc<Self>, statement: Statement) -> Result<Answer, String> {
        let slots = Arc::clone(&self.slots);
        let slot = slots.acquire_owned().await.map_err(|error| error.to_string())?;
        let sessions = Arc::clone(self);
        let answer = tokio::task::spawn_blocking(move || {
            let answer = sessions.run_here(&statement);
            drop((statement.data, slot));
            answer
        })
        .await;
        answer.unwrap_or_else(|error| Err(format!("Code: 1001. DB::Exception: {error}")))
    }

    /// Waits for what still runs, closes every connection and stops the engine.
    pub async fn shutdown(&self) -> bool {
        let all = u32::try_from(self.connections).unwrap_or(u32::MAX);
        let waited = self.slots.acquire_many(all).await;
        self.idle().clear();
        waited.is_ok() && self.engine.shutdown()
    }

    fn run_here(&self, statement: &Statement) -> Result<Answer, String> {
        let mut chosen = self.take(&statement.session)?;
        chosen.adopt(&statement.session)?;
        let answer =
            chosen.connection.query(&statement.sql, &statement.format, &statement.parameters);
        // What such a statement leaves behind must not reach the next request.
        if !matches!(verb(&statement.sql).as_str(), "set" | "use") {
            self.idle().push(chosen);
        }
        answer
    }

    fn take(&self, session: &Session) -> Result<Idle, String> {
        let mut idle = self.idle();
        if let Some(position) = idle.iter().rposition(|candidate| candidate.session == *session) {
            return Ok(idle.swap_remove(position));
        }
        if let Some(any) = idle.pop() {
            return Ok(any);
        }
        drop(idle);
        Ok(Idle { connection: self.engine.connect()?, session: Session::default() })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    /// On an error the connection is dropped with what was set half-way.
    fn adopt(&mut self, wanted: &Session) -> Result<(), String> {
        // Always said again: a database of that name may have been dropped since.
        let database = wanted.database.as_deref().unwrap_or("default");
        if wanted.database.is_some() || self.session.database.is_some() {
            self.set(&format!("USE `{}`", database.replace('\\', "\\\\").replace('`', "\\`")))?;
        }
        for name in self.session.settings.keys().cloned().collect::<Vec<_>>() {
            if !wanted.settings.contains_key(&name) {
                self.set(&format!("SET {name} = DEFAULT"))?;
            }
        }
        for (name, value) in &wanted.settings {
            if self.session.settings.get(name) != Some(value) {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                self.set(&format!("SET {name} = '{value}'"))?;
            }
        }
        self.session = wanted.clone();
        Ok(())
    }

    fn set(&mut self, sql: &str) -> Result<(), String> {
        self.connection.query(sql.as_bytes(), "Null", &[]).map(drop)
    }
}
