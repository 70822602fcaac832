//! The functions that run inside Redis, as one library.
//!
//! A function library, not scripts: its helpers are made once and not with every call. Its names
//! carry a digest of the source, so processes of two versions can share a server while one
//! replaces the other; an epoch they share only while both know the same layout of the keys.

use std::fmt::Write;

use metering::quota::{ADMISSION_WINDOW, MARGIN};
use sha2::{Digest, Sha256};

const SOURCES: [&str; 10] = [
    include_str!("lua/numbers.lua"),
    include_str!("lua/state.lua"),
    include_str!("lua/limits.lua"),
    include_str!("lua/admit.lua"),
    include_str!("lua/hold.lua"),
    include_str!("lua/release.lua"),
    include_str!("lua/usage.lua"),
    include_str!("lua/settle.lua"),
    include_str!("lua/seed.lua"),
    include_str!("lua/epoch.lua"),
];

/// What Redis is asked to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Admit,
    Hold,
    Release,
    Usage,
    Settle,
    Seed,
    Advance,
    Close,
    Open,
}

impl Function {
    const ALL: [Self; 9] = [
        Self::Admit,
        Self::Hold,
        Self::Release,
        Self::Usage,
        Self::Settle,
        Self::Seed,
        Self::Advance,
        Self::Close,
        Self::Open,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Usage => "usage",
            Self::Settle => "settle",
            Self::Seed => "seed",
            Self::Advance => "advance",
            Self::Close => "close",
            Self::Open => "open",
        }
    }
}

/// The library's text, and the names that its functions have in Redis.
pub(super) struct Library {
    pub(super) source: String,
    names: Vec<String>,
}

impl Library {
    pub(super) fn new() -> Self {
        let reach = ADMISSION_WINDOW.saturating_add(MARGIN).as_millis();
        let sources = format!("local REACH = {reach}\n{}", SOURCES.concat());
        let mut digest = String::new();
        for byte in &Sha256::digest(sources.as_bytes())[..6] {
            // Writing to a string does not fail.
            write!(digest, "{byte:02x}").unwrap_or_default();
        }
        let name = format!("tokenmeter_{digest}");
        let source = format!("#!lua name={name}\nlocal PREFIX = '{name}_'\n{sources}");
        let names = Function::ALL.iter().map(|one| format!("{name}_{}", one.name())).collect();
        Self { source, names }
    }

    pub(super) fn name(&self, function: Function) -> &str {
        let place = Function::ALL.iter().position(|one| *one == function);
        place.and_then(|place| self.names.get(place)).map_or("", String::as_str)
    }
}
