//! Registration, login, and the tokens that come from them.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use edge::json::Body;
use edge::{ClientAddress, Code, Problem, Success, created, ok};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use metering::accounts::{CreateError, Email, Role, Rotation, User, UserId};
use metrics::counter;
use serde::{Deserialize, Serialize};

use super::issue::{Invalid, UserRequest, create_user};
use super::tokens::{refresh_token, refresh_token_digest};
use super::view::Profile;
use crate::extract::Anybody;
use crate::state::Api;

#[derive(Deserialize)]
pub(crate) struct Registration {
    name: String,
    email: String,
    password: String,
    #[serde(default)]
    role: Option<Role>,
    #[serde(default)]
    subscription: Option<AskedPlan>,
}

#[derive(Deserialize)]
struct AskedPlan {
    plan: String,
    #[serde(default)]
    payment_method_id: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Login {
    email: String,
    password: String,
}

#[derive(Deserialize)]
pub(crate) struct RefreshToken {
    refresh_token: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Tokens {
    access_token: String,
    refresh_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct LoggedIn {
    #[serde(flatten)]
    tokens: Tokens,
    user: Profile,
}

#[derive(Debug, Serialize)]
pub(crate) struct LoggedOut {}

/// `POST /api/auth/register`
pub(crate) async fn register(
    State(api): State<Api>,
    Anybody(caller): Anybody,
    Body(asked): Body<Registration>,
) -> Result<Success<LoggedIn>, Problem> {
    let role = asked.role.unwrap_or_default();
    let by_admin = caller.as_ref().is_some_and(edge::Caller::is_admin);
    if role != Role::User && !by_admin {
        let detail = "only an admin makes users of another role than user";
        let code = if caller.is_some() { Code::Forbidden } else { Code::Unauthenticated };
        return Err(Problem::new(code, detail));
    }
    let (plan, payment_method_id) = asked
        .subscription
        .map_or((None, None), |asked| (Some(asked.plan), asked.payment_method_id));
    let request = UserRequest {
        name: Some(asked.name),
        email: Some(asked.email),
        external_id: None,
        password: Some(asked.password),
        role,
        plan,
        payment_method_id,
    };
    let user = request.check(&api.plans).map_err(in_registration)?;
    if let Some(plan) = api.plans.get(user.plan().as_str()).filter(|_| !by_admin) {
        api.may_ask_for(plan)?;
    }
    let user = match create_user(&*api.accounts, &api.passwords, user, api.clock.now()).await {
        Ok(user) => user,
        Err(error) => {
            if matches!(error, CreateError::EmailTaken) {
                counter!("tokenmeter_registrations_total", "outcome" => "email_taken").increment(1);
            }
            return Err(not_created(error));
        }
    };
    counter!("tokenmeter_registrations_total", "outcome" => "created").increment(1);
    let id = user.id;
    let profile = api.new_profile(user).await?;
    Ok(created(LoggedIn { tokens: api.begin_session(id).await?, user: profile }))
}

/// The plan stands one level down in this body.
fn in_registration(invalid: Invalid) -> Problem {
    if matches!(invalid.field, "plan" | "payment_method_id") {
        let pointer = format!("#/subscription/{}", invalid.field);
        return Problem::field(&pointer, invalid.code, invalid.detail);
    }
    invalid.into()
}

/// What a refused creation looks like.
pub(super) fn not_created(error: CreateError) -> Problem {
    match error {
        CreateError::EmailTaken => {
            Problem::new(Code::EmailTaken, "there is an account with this e-mail address")
        }
        // Callers that may name external ids answer with the user instead.
        CreateError::ExternalIdTaken(_) => Problem::internal("external id taken"),
        CreateError::Unavailable(error) => error.into(),
    }
}

/// `POST /api/auth/login`
///
/// Same answer and same time whether the address, the password or both are wrong.
pub(crate) async fn login(
    State(api): State<Api>,
    client: ClientAddress,
    Body(asked): Body<Login>,
) -> Result<Success<LoggedIn>, Problem> {
    let not_an_email = |_| Problem::field("#/email", "not_allowed", "must be an e-mail address");
    let email = Email::new(&asked.email).map_err(not_an_email)?;
    // No password is longer: hashing more would only serve whoever wants to keep us busy.
    if asked.password.chars().count() > 256 {
        return Err(Problem::field("#/password", "too_long", "must have at most 256 characters"));
    }
    let outcome = authenticate(&api, &email, asked.password, client).await;
    let word = match &outcome {
        Ok(Ok(_)) => "granted",
        Ok(Err(Wrong::Credentials)) => "wrong",
        Ok(Err(Wrong::Locked)) => "locked",
        Err(problem) if problem.code() == Code::TooManyRequests => "throttled",
        Err(_) => "unavailable",
    };
    counter!("tokenmeter_logins_total", "outcome" => word).increment(1);
    let wrong = |_| Problem::new(Code::Unauthenticated, "wrong e-mail address or password");
    let user = outcome?.map_err(wrong)?;
    let id = user.id;
    let profile = api.profile_of(user).await?;
    Ok(ok(LoggedIn { tokens: api.begin_session(id).await?, user: profile }))
}

enum Wrong {
    Credentials,
    Locked,
}

async fn authenticate(
    api: &Api,
    email: &Email,
    password: String,
    client: ClientAddress,
) -> Result<Result<User, Wrong>, Problem> {
    let attempt = api.throttle.admit(email, client, api.clock.now()).await?;
    let found = api.accounts.find_login(email).await?;
    let (user, known) = found.map_or((None, None), |(user, known)| (Some(user), known));
    let right = api.passwords.verify(password, known).await?;
    match user.filter(|_| right) {
        Some(user) if user.locked => Ok(Err(Wrong::Locked)),
        Some(user) => Ok(Ok(user)),
        None => {
            attempt.note_wrong().await?;
            Ok(Err(Wrong::Credentials))
        }
    }
}

/// `POST /api/auth/refresh`
pub(crate) async fn refresh(
    State(api): State<Api>,
    Body(shown): Body<RefreshToken>,
) -> Result<Success<Tokens>, Problem> {
    let now = api.clock.now();
    let digest = refresh_token_digest(&shown.refresh_token);
    let (successor, successor_digest) = refresh_token();
    let expires_at = api.issuer.refresh_expiry(now);
    let rotation = api.sessions.rotate(digest, successor_digest, expires_at, now).await?;
    let outcome = match rotation {
        Rotation::Rotated(_) => "rotated",
        Rotation::Reused => "reused",
        Rotation::Invalid => "invalid",
    };
    counter!("tokenmeter_token_refreshes_total", "outcome" => outcome).increment(1);
    match rotation {
        Rotation::Rotated(user) => api.tokens(user, successor).map(ok),
        Rotation::Reused | Rotation::Invalid => {
            Err(Problem::new(Code::Unauthenticated, "the refresh token is not valid"))
        }
    }
}

/// `POST /api/auth/logout`
pub(crate) async fn logout(
    State(api): State<Api>,
    Body(shown): Body<RefreshToken>,
) -> Result<Success<LoggedOut>, Problem> {
    let digest = refresh_token_digest(&shown.refresh_token);
    api.sessions.end(digest, api.clock.now()).await?;
    Ok(ok(LoggedOut {}))
}

/// `GET /.well-known/jwks.json`
pub(crate) async fn jwks(State(api): State<Api>) -> Response {
    let mut response = edge::json::response(StatusCode::OK, api.issuer.jwks());
    let an_hour = HeaderValue::from_static("public, max-age=3600");
    response.headers_mut().insert(CACHE_CONTROL, an_hour);
    response.into_response()
}

impl Api {
    async fn begin_session(&self, user: UserId) -> Result<Tokens, Problem> {
        let now = self.clock.now();
        let (token, digest) = refresh_token();
        let expires_at = self.issuer.refresh_expiry(now);
        self.sessions.begin(user, digest, expires_at, now).await?;
        self.tokens(user, token)
    }

    fn tokens(&self, user: UserId, refresh_token: String) -> Result<Tokens, Problem> {
        let (access_token, expires_in) = self.issuer.access_token(user, self.clock.now())?;
        Ok(Tokens { access_token, refresh_token, token_type: "bearer", expires_in })
    }
}
