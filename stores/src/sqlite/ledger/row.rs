//! How values stand in rows, and how SQLite's errors leave the store.

use std::str::FromStr;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::usage::RequestType;
use rusqlite::types::{FromSql, Type};
use rusqlite::{Connection, Error, OptionalExtension as _, Row};

/// The label of this store in errors and metrics.
pub(super) const STORE: &str = "ledger";

/// Whatever SQLite says (locked, no space, damaged), the caller can only ask again.
pub(super) fn unavailable(error: impl std::fmt::Display) -> Unavailable {
    Unavailable::new(STORE, error)
}

/// A count as SQLite keeps it; an error when it does not fit.
pub(super) fn stored(count: u64) -> rusqlite::Result<i64> {
    i64::try_from(count).map_err(foreign)
}

/// A column that is never negative.
pub(super) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(column, value))
}

/// A column of exactly `N` bytes.
pub(super) fn bytes<const N: usize>(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; N]> {
    let value = row.get_ref(column)?;
    <[u8; N]>::column_result(value)
        .map_err(|error| Error::FromSqlConversionFailure(column, value.data_type(), error.into()))
}

/// A column with a user's id.
pub(super) fn user_id(row: &Row<'_>, column: usize) -> rusqlite::Result<UserId> {
    bytes(row, column).map(UserId::from_bytes)
}

/// A column with the number of a request type.
pub(super) fn request_type(row: &Row<'_>, column: usize) -> rusqlite::Result<RequestType> {
    let number: i64 = row.get(column)?;
    RequestType::from_number(number).ok_or(Error::IntegralValueOutOfRange(column, number))
}

/// A column with a word of the domain that only this program wrote.
pub(super) fn word<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    let odd = || format!("{text:?} is none of ours");
    text.parse().map_err(|_| Error::FromSqlConversionFailure(column, Type::Text, odd().into()))
}

/// What no column can hold, or another library refused.
pub(super) fn foreign(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ToSqlConversionFailure(Box::new(error))
}

/// The number of a user; one that no row has when nothing of theirs was ever counted.
pub(super) fn user_number(open: &Connection, user: UserId) -> rusqlite::Result<i64> {
    let mut select = open.prepare_cached("SELECT number FROM users WHERE id = ?")?;
    Ok(select.query_row([user.as_bytes()], |row| row.get(0)).optional()?.unwrap_or(-1))
}

/// The user with that number.
pub(super) fn user_of(open: &Connection, number: i64) -> rusqlite::Result<UserId> {
    open.prepare_cached("SELECT id FROM users WHERE number = ?")?
        .query_row([number], |row| user_id(row, 0))
}

/// The number of a model's or plan's name; one that no row has when the name was never met.
pub(super) fn name_number(open: &Connection, name: &str) -> rusqlite::Result<i64> {
    let mut select = open.prepare_cached("SELECT number FROM names WHERE name = ?")?;
    Ok(select.query_row([name], |row| row.get(0)).optional()?.unwrap_or(-1))
}
