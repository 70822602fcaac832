//! Brings the schema up to date: the files of `migrations/clickhouse`, each once and in order.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Database;

/// One file of `migrations/clickhouse`.
struct Step {
    version: u32,
    name: &'static str,
    statements: &'static str,
}

macro_rules! step {
    ($version:literal, $name:literal) => {
        Step {
            version: $version,
            name: $name,
            statements: include_str!(concat!("../../../migrations/clickhouse/", $name, ".sql")),
        }
    };
}

/// All steps in order. What has landed is never edited, renamed or removed.
const STEPS: &[Step] = &[step!(1, "0001_ledger"), step!(2, "0002_fewer_merges")];

/// Which files were applied. A step that was cut off is applied again, so its statements must bear
/// that, and a row may stand here twice.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations \
     (version UInt32, name String, checksum String, applied_at DateTime DEFAULT now()) \
     ENGINE = ReplacingMergeTree ORDER BY version \
     SETTINGS fsync_after_insert = 1, fsync_part_directory = 1";

#[derive(Row, Serialize, Deserialize)]
struct Applied {
    version: u32,
    name: String,
    /// SHA-256 of the file, in hexadecimal.
    checksum: String,
}

/// Why the schema is not, or was not brought, up to date. ClickHouse has no transactions for such
/// statements: a step that failed may be done in part, and is done again from its beginning.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A newer program has migrated it.
    #[error(
        "ClickHouse has schema {found}, this program knows up to {known}: it was migrated by a newer \
         version; start that one"
    )]
    Newer {
        /// Its number.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// Steps are missing.
    #[error("ClickHouse has schema {found}, this program needs {known}: run `tokenmeter migrate`")]
    Behind {
        /// Its number, 0 for an empty database.
        found: u32,
        /// What this program needs.
        known: u32,
    },
    /// What was applied is not what this program would apply.
    #[error(
        "ClickHouse was migrated with another {name}: this program was built from other files than \
         the one that applied it"
    )]
    Altered {
        /// The file.
        name: String,
    },
    /// ClickHouse refused a statement: its message says what to change, then try again.
    #[error("the step {name} was not applied")]
    Refused {
        /// The file.
        name: &'static str,
        /// What ClickHouse said.
        source: clickhouse::error::Error,
    },
    /// Try again.
    #[error("ClickHouse is unavailable")]
    Unavailable(#[from] clickhouse::error::Error),
}

/// Applies what is missing; the database itself must be there. Answers how many steps were applied.
///
/// # Errors
/// [`SchemaError`]. Steps before the one that failed are done.
pub async fn migrate(database: &Database) -> Result<usize, SchemaError> {
    database.change(TABLE).execute().await?;
    let found = verified(database).await?;
    let mut applied = 0;
    for step in STEPS.iter().filter(|step| step.version > found) {
        let refused = |source| SchemaError::Refused { name: step.name, source };
        for statement in statements(step.statements) {
            database.change(&statement).execute().await.map_err(refused)?;
        }
        let note = "INSERT INTO schema_migrations (version, name, checksum) \
                    SELECT {version:UInt32}, {name:String}, {checksum:String}";
        let note = database.change(note).param("version", step.version).param("name", step.name);
        note.param("checksum", checksum(step)).execute().await?;
        applied += 1;
    }
    Ok(applied)
}

/// Whether the schema is the one that this program needs. Changes nothing.
///
/// # Errors
/// [`SchemaError`]: it is not, or ClickHouse did not answer.
pub async fn check(database: &Database) -> Result<(), SchemaError> {
    let table = "SELECT count() FROM system.tables \
                 WHERE database = currentDatabase() AND name = 'schema_migrations'";
    let found = match database.query(table).fetch_one::<u64>().await? {
        0 => 0,
        _ => verified(database).await?,
    };
    match known() {
        known if found < known => Err(SchemaError::Behind { found, known }),
        _ => Ok(()),
    }
}

fn known() -> u32 {
    STEPS.last().map_or(0, |step| step.version)
}

/// The number of the last step applied, once all of them are known to be ours.
async fn verified(database: &Database) -> Result<u32, SchemaError> {
    let select = "SELECT version, name, checksum FROM schema_migrations FINAL ORDER BY version";
    let mut last = 0;
    for Applied { version: found, name, checksum: applied } in
        database.query(select).fetch_all().await?
    {
        let Some(step) = STEPS.iter().find(|step| step.version == found) else {
            return Err(SchemaError::Newer { found, known: known() });
        };
        if applied != checksum(step) {
            return Err(SchemaError::Altered { name });
        }
        last = found;
    }
    Ok(last)
}

/// One statement ends where a line ends with a semicolon: ClickHouse takes one at a time. Lines that
/// are comments are left out.
fn statements(file: &str) -> Vec<String> {
    let lines = file.lines().filter(|line| !line.trim_start().starts_with("--"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let statements = text.split(";\n").map(|statement| statement.trim().trim_end_matches(';'));
    statements.filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}

fn checksum(step: &Step) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(step.statements) {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_into_its_statements() {
        let file = "-- a; b;\nCREATE TABLE a\n(\n    -- c;\n    x UInt8\n);\n\nSELECT ';';\n";
        assert_eq!(statements(file), ["CREATE TABLE a\n(\n    x UInt8\n)", "SELECT ';'"]);
    }

    #[test]
    fn steps_are_numbered_without_gaps() {
        for (place, step) in STEPS.iter().enumerate() {
            assert_eq!(step.version as usize, place + 1);
            assert!(step.name.starts_with(&format!("{:04}_", step.version)));
        }
    }
}
