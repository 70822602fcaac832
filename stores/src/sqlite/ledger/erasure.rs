//! Erasing the metadata of a user: of what is stored, and of what is still to come from the log.

use std::collections::HashMap;

use metering::accounts::UserId;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::history::NEWEST;
use super::row::stored;

/// Rows whose metadata is erased in one transaction: some milliseconds, in which no flush commits.
const ERASED_AT_ONCE: usize = 2000;

/// From this commit on no flush stores metadata of `user`, whoever commits it.
pub(super) fn begin(open: &mut Connection, user: UserId) -> rusqlite::Result<()> {
    // What is erased must not stay in unused bytes of the page.
    open.pragma_update(None, "secure_delete", true)?;
    durably(open, |open| {
        open.execute("INSERT OR IGNORE INTO erased_users VALUES (?)", [user.as_bytes()]).map(drop)
    })
}

/// Erases the metadata of some events of `user` below a position; answers where to go on.
pub(super) fn erase_some(
    open: &mut Connection,
    user: UserId,
    below: Option<(i64, i64)>,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let step = open.transaction()?;
    let (occurred_at, offset) = below.unwrap_or(NEWEST);
    let rows: Vec<(i64, i64)> = step
        .prepare_cached(
            "SELECT occurred_at, offset FROM events \
             WHERE user = (SELECT number FROM users WHERE id = ?) \
             AND (occurred_at, offset) < (?, ?) \
             ORDER BY occurred_at DESC, offset DESC LIMIT ?",
        )?
        .query_map(
            params![user.as_bytes(), occurred_at, offset, stored(ERASED_AT_ONCE as u64)?],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .collect::<Result<_, _>>()?;
    let erase = "UPDATE events SET metadata = NULL WHERE offset = ? AND metadata IS NOT NULL";
    let mut erase = step.prepare_cached(erase)?;
    for (_, offset) in &rows {
        erase.execute([offset])?;
    }
    drop(erase);
    step.commit()?;
    Ok(rows.last().copied().filter(|_| rows.len() == ERASED_AT_ONCE))
}

/// Runs the last change of an erasure. Its commit is fsynced, and everything before it: unlike
/// counts, an erasure cannot be made again from the log after a loss of power.
pub(super) fn durably<T>(
    open: &mut Connection,
    change: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    open.pragma_update(None, "synchronous", "full")?;
    let changed = change(open);
    open.pragma_update(None, "synchronous", "normal")?;
    changed
}

/// Who is erased, remembered for one transaction: another process may erase somebody at any time.
#[derive(Default)]
pub(super) struct Erased(HashMap<UserId, bool>);

impl Erased {
    pub(super) fn contains(&mut self, open: &Connection, user: UserId) -> rusqlite::Result<bool> {
        if let Some(erased) = self.0.get(&user) {
            return Ok(*erased);
        }
        let mut select = open.prepare_cached("SELECT 1 FROM erased_users WHERE id = ?")?;
        let erased = select.query_row([user.as_bytes()], |_| Ok(())).optional()?.is_some();
        self.0.insert(user, erased);
        Ok(erased)
    }
}
