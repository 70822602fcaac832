//! Places at which tests stop the process, to kill it there. Without the feature `failpoints` there are
//! none.
//!
//! The variable `FAILPOINTS` names them when the process starts, as the crate `fail` has it:
//! `ledger::raw=20*off->return`. What comes to a place that says `return` stays there for ever, and the
//! process's log says so; `sleep(MILLISECONDS)` only holds it up.

/// Reads which places are set. They are in force until what this answers is dropped.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn set_up() -> impl Sized {
    fail::FailScenario::setup()
}

/// Between two steps.
#[cfg(feature = "failpoints")]
pub(crate) async fn reached(name: &'static str) {
    // A place may be told to sleep: not on a thread that others need.
    match tokio::task::spawn_blocking(move || stays(name)).await {
        Ok(false) => {}
        Ok(true) => {
            tracing::warn!("failpoint {name} reached: nothing goes on from here");
            std::future::pending::<()>().await;
        }
        Err(error) => tracing::error!(%error, name, "a failpoint has panicked"),
    }
}

#[cfg(feature = "failpoints")]
fn stays(name: &'static str) -> bool {
    fail::fail_point!(name, |_| true);
    false
}

/// Between two steps.
#[cfg(not(feature = "failpoints"))]
#[allow(clippy::unused_async, reason = "with the feature it waits")]
pub(crate) async fn reached(_: &'static str) {}
