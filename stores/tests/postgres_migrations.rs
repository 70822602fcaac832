//! The schema of Postgres: fresh, again, altered, newer, and over an application's own tables.

mod servers;

use servers::postgres::empty;
use stores::postgres::{SchemaError, check, migrate};

#[tokio::test]
async fn an_empty_database_is_behind_until_it_is_migrated() {
    let fresh = empty().await;
    let database = fresh.connect();
    assert!(matches!(check(&database).await, Err(SchemaError::Behind { found: 0, .. })));
    assert!(migrate(&database).await.unwrap() > 0);
    check(&database).await.unwrap();
    assert_eq!(migrate(&database).await.unwrap(), 0);
}
