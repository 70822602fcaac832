use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{SigningKey, SigningKeys};
use rusqlite::{Connection, Row, params};

use super::{SqliteAccounts, instant};

#[async_trait]
impl SigningKeys for SqliteAccounts {
    async fn load(&self, candidate: SigningKey) -> Result<Vec<SigningKey>, Unavailable> {
        self.write(move |transaction| {
            let found = all(transaction)?;
            if !found.is_empty() {
                return Ok(found);
            }
            transaction.execute(
                "INSERT INTO signing_keys VALUES (?1, ?2, ?3, ?4)",
                params![
                    candidate.id,
                    candidate.pkcs8,
                    candidate.public,
                    candidate.created_at.as_millis()
                ],
            )?;
            Ok(vec![candidate])
        })
        .await
    }
}

fn all(connection: &Connection) -> rusqlite::Result<Vec<SigningKey>> {
    let mut statement =
        connection.prepare("SELECT * FROM signing_keys ORDER BY created_at DESC, id")?;
    statement.query_map([], signing_key)?.collect()
}

fn signing_key(row: &Row<'_>) -> rusqlite::Result<SigningKey> {
    Ok(SigningKey {
        id: row.get("id")?,
        pkcs8: row.get("pkcs8")?,
        public: row.get("public")?,
        created_at: instant(row, "created_at")?,
    })
}
