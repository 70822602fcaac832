//! Places at which tests stop or kill the process. Without the feature `failpoints` there are none.

/// Between two steps of a commit.
#[cfg(feature = "failpoints")]
pub(super) async fn reached(name: &'static str) {
    // A place may be told to pause: not on a thread that others need.
    let passing = tokio::task::spawn_blocking(move || fail::fail_point!(name));
    if let Err(error) = passing.await {
        tracing::error!(%error, name, "a failpoint has panicked");
    }
}

/// Between two steps of a commit.
#[cfg(not(feature = "failpoints"))]
#[allow(clippy::unused_async, reason = "with the feature it waits")]
pub(super) async fn reached(_: &'static str) {}
