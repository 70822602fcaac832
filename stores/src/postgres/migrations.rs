//! Brings the schema up to date: the files of `migrations/postgres`, each once and in order.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use sqlx::{PgConnection, Row};

use super::Database;

/// One file of `migrations/postgres`.
struct Step {
    version: i32,
    name: &'static str,
    statements: &'static str,
}

macro_rules! step {
    ($version:literal, $name:literal) => {
        Step {
            version: $version,
            name: $name,
            statements: include_str!(concat!("../../../migrations/postgres/", $name, ".sql")),
        }
    };
}

/// All steps in order. What has landed is never edited, renamed or removed.
const STEPS: &[Step] = &[
    step!(1, "0001_users_and_subscriptions"),
    step!(2, "0002_accounts"),
    step!(3, "0003_ledger"),
    step!(4, "0004_log_generations"),
    step!(5, "0005_logs_left"),
    step!(6, "0006_alerts"),
];

/// Held while steps are looked at and applied, so that of two programs one waits. Any other number
/// would do, but it must be the same in every version.
const LOCK: i64 = 0x746f_6b65_6e6d_6574;

/// Why the schema is not, or was not brought, up to date. A step that failed changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A newer program has migrated it.
    #[error(
        "Postgres has schema {found}, this program knows up to {known}: it was migrated by a newer \
         version; start that one"
    )]
    Newer {
        /// Its number.
        found: i32,
        /// The newest that this program knows.
        known: i32,
    },
    /// Steps are missing.
    #[error(
        "Postgres has schema {found}, this program needs {known} and all before it: run \
         `tokenmeter migrate`"
    )]
    Behind {
        /// The number of its last step, 0 for an empty database.
        found: i32,
        /// What this program needs.
        known: i32,
    },
    /// What was applied is not what this program would apply.
    #[error(
        "Postgres was migrated with another {name}: this program was built from other files than \
         the one that applied it"
    )]
    Altered {
        /// The file.
        name: String,
    },
    /// Postgres refused a step: its message says what to change, then try again.
    #[error("the step {name} was not applied, nothing was changed")]
    Refused {
        /// The file.
        name: &'static str,
        /// What Postgres said.
        source: sqlx::Error,
    },
    /// Try again.
    #[error("Postgres is unavailable")]
    Unavailable(#[from] sqlx::Error),
}

/// Applies what is missing, each step in a transaction of its own. Answers how many were applied.
///
/// # Errors
/// [`SchemaError`]. Steps before the one that failed are done.
pub async fn migrate(database: &Database) -> Result<usize, SchemaError> {
    let mut applied = 0;
    let mut connection = database.pool().acquire().await?;
    while apply_next(&mut connection).await? {
        applied += 1;
    }
    Ok(applied)
}

/// Whether the schema is the one that this program needs. Changes nothing.
///
/// # Errors
/// [`SchemaError`]: it is not, or Postgres did not answer.
pub async fn check(database: &Database) -> Result<(), SchemaError> {
    let mut connection = database.pool().acquire().await?;
    let table = "SELECT to_regclass('schema_migrations') IS NOT NULL";
    let applied = if sqlx::query_scalar(table).fetch_one(&mut *connection).await? {
        verified(&mut connection).await?
    } else {
        BTreeSet::new()
    };
    match missing(&applied) {
        Some(_) => {
            let found = applied.last().copied().unwrap_or(0);
            Err(SchemaError::Behind { found, known: known() })
        }
        None => Ok(()),
    }
}

/// The first step that was not applied, also when a later one was.
fn missing(applied: &BTreeSet<i32>) -> Option<&'static Step> {
    STEPS.iter().find(|step| !applied.contains(&step.version))
}

fn known() -> i32 {
    STEPS.last().map_or(0, |step| step.version)
}

async fn apply_next(connection: &mut PgConnection) -> Result<bool, SchemaError> {
    let mut migration = sqlx::Connection::begin(connection).await?;
    sqlx::raw_sql(include_str!("before_migration.sql")).execute(&mut *migration).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *migration).await?;
    sqlx::raw_sql(include_str!("schema_migrations.sql")).execute(&mut *migration).await?;
    let Some(step) = missing(&verified(&mut migration).await?) else {
        migration.commit().await?;
        return Ok(false);
    };
    let name = step.name;
    let refused = |source| SchemaError::Refused { name, source };
    sqlx::raw_sql(step.statements).execute(&mut *migration).await.map_err(refused)?;
    let note = "INSERT INTO schema_migrations VALUES ($1, $2, $3, now())";
    sqlx::query(note)
        .bind(step.version)
        .bind(step.name)
        .bind(checksum(step))
        .execute(&mut *migration)
        .await?;
    migration.commit().await.map_err(refused)?;
    Ok(true)
}

/// The numbers of the steps that were applied, once all of them are known to be ours.
async fn verified(connection: &mut PgConnection) -> Result<BTreeSet<i32>, SchemaError> {
    let sql = "SELECT version, name, checksum FROM schema_migrations ORDER BY version";
    let mut applied = BTreeSet::new();
    for row in sqlx::query(sql).fetch_all(connection).await? {
        let (found, name): (i32, String) = (row.try_get("version")?, row.try_get("name")?);
        let Some(step) = STEPS.iter().find(|step| step.version == found) else {
            return Err(SchemaError::Newer { found, known: known() });
        };
        if row.try_get::<Vec<u8>, _>("checksum")? != checksum(step) {
            return Err(SchemaError::Altered { name });
        }
        applied.insert(found);
    }
    Ok(applied)
}

fn checksum(step: &Step) -> Vec<u8> {
    Sha256::digest(step.statements).to_vec()
}
