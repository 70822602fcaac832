//! The pool of connections, and how long its users wait.

use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use metering::Unavailable;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// The URL is not one of Postgres. Nothing was connected.
#[derive(Debug, thiserror::Error)]
#[error("the Postgres URL is not valid: postgres://USER:PASSWORD@HOST:PORT/DATABASE is expected")]
pub struct OpenError(#[source] sqlx::Error);

/// How many connections, and how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connections of this process. Too few and callers queue; the server bounds the sum over all
    /// processes (`max_connections`).
    pub connections_max: u32,
    /// How long a caller waits for a free or a new connection.
    pub connect_timeout: Duration,
    /// After that the server gives a statement up, and so does a statement that waits for a lock.
    pub statement_timeout: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            connections_max: 10,
            connect_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
        }
    }
}

/// One Postgres database. Cheap to clone: all clones share the pool.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    /// How long a unit of work may take in all. A server that is stopped, or a network that
    /// swallows packets, answers nothing and enforces no timeout of its own.
    patience: Duration,
}

impl Database {
    /// Keeps the URL; connects when first asked, and anew after a connection was lost. Call it
    /// within a runtime.
    ///
    /// # Errors
    /// [`OpenError`]: this is no URL of Postgres.
    pub fn connect(url: &str, settings: PoolSettings) -> Result<Self, OpenError> {
        let timeout = |limit: Duration| format!("{}ms", limit.as_millis());
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            let scheme = "it does not begin with postgres://";
            return Err(OpenError(sqlx::Error::Configuration(scheme.into())));
        }
        let options = PgConnectOptions::from_str(url)
            .map_err(OpenError)?
            .application_name("tokenmeter")
            .options([
                ("statement_timeout", timeout(settings.statement_timeout)),
                // A process that hangs in a transaction must not keep its locks.
                ("idle_in_transaction_session_timeout", timeout(settings.statement_timeout * 2)),
            ]);
        // Each connection is tried before it is lent: one that a restart of the server has cut is
        // replaced without anybody noticing.
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(settings.connect_timeout)
            .test_before_acquire(true)
            .connect_lazy_with(options);
        let patience = settings.connect_timeout + settings.statement_timeout * 2;
        Ok(Self { pool, patience })
    }

    /// The pool, for statements and transactions that run inside of [`Self::within`].
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs a unit of work; `store` names it in the error and in metrics. A transaction that was
    /// begun inside and not committed is rolled back.
    ///
    /// # Errors
    /// [`Unavailable`]: Postgres refused, was not reached, or did not answer in time. A commit may
    /// then have happened or not.
    pub async fn within<T>(
        &self,
        store: &'static str,
        work: impl Future<Output = Result<T, sqlx::Error>> + Send,
    ) -> Result<T, Unavailable> {
        match tokio::time::timeout(self.patience, work).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(Unavailable::new(store, error)),
            Err(_) => {
                let waited = self.patience.as_secs();
                Err(Unavailable::new(store, format!("Postgres did not answer within {waited} s")))
            }
        }
    }

    /// Closes all connections; work that runs is waited for.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
