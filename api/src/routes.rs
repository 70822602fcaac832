//! The table of this service's routes.

use axum::routing::{MethodFilter, on};
use edge::Routes;

use crate::accounts::{admin, me, session};
use crate::state::Api;
use crate::usage;

/// One table makes both the routes and the list that tests and documents go through.
macro_rules! table {
    ($($method:ident $path:literal => $handler:path,)+) => {
        /// Method and path of every route.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),+];

        /// All of them.
        pub fn routes() -> Routes<Api> {
            Routes::new()$(.route($path, on(MethodFilter::$method, $handler)))+
        }
    };
}

table! {
    POST "/api/auth/register" => session::register,
    POST "/api/auth/login" => session::login,
    POST "/api/auth/refresh" => session::refresh,
    POST "/api/auth/logout" => session::logout,
    GET "/.well-known/jwks.json" => session::jwks,
    GET "/api/users/me" => me::profile,
    GET "/api/preferences/me" => me::preferences,
    PUT "/api/preferences/me" => me::change_preferences,
    GET "/api/usage/me" => me::usage,
    GET "/api/users/me/usage" => me::usage,
    GET "/api/users/me/subscription" => me::subscription,
    PUT "/api/users/me/subscription" => me::change_subscription,
    GET "/api/users" => admin::list,
    POST "/api/users" => admin::create,
    GET "/api/users/{id}" => admin::profile,
    PATCH "/api/users/{id}" => admin::update,
    DELETE "/api/users/{id}" => admin::erase,
    GET "/api/users/{id}/subscription" => admin::subscription,
    PUT "/api/users/{id}/subscription" => admin::change_subscription,
    GET "/api/users/{id}/usage" => admin::usage,
    GET "/api/users/{id}/tokens" => usage::tokens_of_user,
    GET "/api/users/{id}/tokens/history" => usage::history_of_user,
    GET "/api/tokens/me" => usage::tokens_of_me,
    GET "/api/tokens/me/history" => usage::history_of_me,
    GET "/api/tokens/admin/usage" => usage::admin::usage,
    GET "/api/alerts/me" => usage::alerts::alerts_of_me,
    GET "/api/alerts" => usage::alerts::alerts,
    POST "/api/alerts/retry" => usage::alerts::retry,
}
