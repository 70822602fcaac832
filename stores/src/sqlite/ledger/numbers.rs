//! Short numbers for users and names, kept in memory while events are written or added up.

use hashbrown::HashMap;
use metering::accounts::UserId;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Entries of each map. Too small costs a look-up per event, too large memory: 50 bytes each.
const REMEMBERED_MAX: usize = 200_000;

/// The numbers met so far. What a failed transaction put here must be forgotten.
#[derive(Default)]
pub(super) struct Numbers {
    users: HashMap<UserId, i64>,
    names: HashMap<Box<str>, i64>,
}

impl Numbers {
    /// After a failed commit: its new numbers may be given to others.
    pub(super) fn forget(&mut self) {
        self.users.clear();
        self.names.clear();
    }

    /// Between commits, or between events that are only read: keeps the maps from growing for ever.
    pub(super) fn trim(&mut self) {
        if self.users.len() > REMEMBERED_MAX {
            self.users.clear();
        }
        if self.names.len() > REMEMBERED_MAX {
            self.names.clear();
        }
    }

    /// The number of a user, given now if it has none: where nothing can be written, that is an error.
    pub(super) fn user(&mut self, open: &Connection, id: UserId) -> rusqlite::Result<i64> {
        if let Some(number) = self.users.get(&id) {
            return Ok(*number);
        }
        let mut select = open.prepare_cached("SELECT number FROM users WHERE id = ?")?;
        let number = match select.query_row([id.as_bytes()], |row| row.get(0)).optional()? {
            Some(number) => number,
            None => open
                .prepare_cached("INSERT INTO users (id) VALUES (?) RETURNING number")?
                .query_row(params![id.as_bytes()], |row| row.get(0))?,
        };
        self.users.insert(id, number);
        Ok(number)
    }

    /// The number of a model's or plan's name, given now if it has none.
    pub(super) fn name(&mut self, open: &Connection, name: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.names.get(name) {
            return Ok(*number);
        }
        let mut select = open.prepare_cached("SELECT number FROM names WHERE name = ?")?;
        let number = match select.query_row([name], |row| row.get(0)).optional()? {
            Some(number) => number,
            None => open
                .prepare_cached("INSERT INTO names (name) VALUES (?) RETURNING number")?
                .query_row([name], |row| row.get(0))?,
        };
        self.names.insert(name.into(), number);
        Ok(number)
    }
}
