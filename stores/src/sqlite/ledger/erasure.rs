//! Erasing the metadata of a user: of what is stored, and of what is still to come from the log.

use std::collections::HashMap;

use metering::accounts::UserId;
use rusqlite::{Connection, OptionalExtension as _};

use super::events::{self, Position};
use super::history::NEWEST;
use super::row::user_number;

/// Events whose metadata is erased in one transaction: some tens of milliseconds, if each stands in a block
/// of its own, in which no flush commits.
const ERASED_AT_ONCE: usize = 500;

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
    below: Option<Position>,
) -> rusqlite::Result<Option<Position>> {
    let step = open.transaction()?;
    let number = user_number(&step, user)?;
    let next = events::erase_metadata(&step, number, below.unwrap_or(NEWEST), ERASED_AT_ONCE)?;
    step.commit()?;
    Ok(next)
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
