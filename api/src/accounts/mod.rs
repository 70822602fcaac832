//! Accounts: who there is, how they log in, which plan they are on.
//!
//! Issuing credentials is plain functions over ports here, which the command line calls too.

pub(crate) mod admin;
mod issue;
pub(crate) mod me;
mod passwords;
pub(crate) mod session;
mod subscription;
mod throttle;
mod tokens;
mod view;

pub use issue::{CheckedUser, CreateKeyError, Invalid, UserRequest, create_key, create_user};
pub use passwords::Passwords;
pub use throttle::LoginThrottle;
pub use tokens::{NoSigningKey, TokenIssuer, signing_keys};

use metrics::describe_counter;

/// Help texts of the metrics of accounts.
pub(crate) fn describe() {
    describe_counter!(
        "tokenmeter_logins_total",
        "Logins by outcome: granted, wrong (address or password), locked, throttled, unavailable."
    );
    describe_counter!(
        "tokenmeter_registrations_total",
        "Registrations by outcome: created, email_taken."
    );
    describe_counter!(
        "tokenmeter_token_refreshes_total",
        "Refresh tokens shown, by outcome: rotated, reused (their family is revoked), invalid."
    );
}
