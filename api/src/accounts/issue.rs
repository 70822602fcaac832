//! Makes users and API keys, for HTTP and for the command line.

use metering::Unavailable;
use metering::accounts::{
    Accounts, ApiKey, ApiKeys, CreateError, Email, NewUser, Role, Scopes, User, UserId,
};
use metering::quota::{PlanCatalogue, PlanName};
use metering::time::Timestamp;

use super::Passwords;

/// Names of users and keys, in characters. Longer ones only spoil lists.
const NAME_CHARS_MAX: usize = 200;

/// External ids, in bytes. They are indexed: longer ones make every look-up dearer.
const EXTERNAL_ID_BYTES_MAX: usize = 256;

/// Ids of payment methods, in bytes.
const PAYMENT_METHOD_BYTES_MAX: usize = 255;

/// Passwords, in characters (API, section 1).
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=256;

/// A value that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct Invalid {
    /// Which field of [`UserRequest`] or of a key.
    pub field: &'static str,
    /// As in problem bodies: `required`, `too_long`, `not_allowed`.
    pub code: &'static str,
    /// For people.
    pub detail: &'static str,
}

/// A user as somebody asks for one.
#[derive(Clone, Default)]
pub struct UserRequest {
    /// Shown only.
    pub name: Option<String>,
    /// What they log in with.
    pub email: Option<String>,
    /// A service's own name for them.
    pub external_id: Option<String>,
    /// Without one they cannot log in.
    pub password: Option<String>,
    /// What they may do.
    pub role: Role,
    /// `None` is `free`.
    pub plan: Option<String>,
    /// How to pay for it.
    pub payment_method_id: Option<String>,
}

/// A [`UserRequest`] whose every value may be.
pub struct CheckedUser {
    name: Option<String>,
    email: Option<Email>,
    external_id: Option<String>,
    password: Option<String>,
    role: Role,
    plan: PlanName,
    payment_method_id: Option<String>,
}

impl UserRequest {
    /// Checks every value; plans are those of `plans`.
    ///
    /// # Errors
    /// [`Invalid`]: the first value that may not be.
    pub fn check(self, plans: &PlanCatalogue) -> Result<CheckedUser, Invalid> {
        if let Some(name) = &self.name {
            check_name("name", name)?;
        }
        let email = self.email.as_deref().map(Email::new).transpose();
        let detail = "must be an e-mail address of at most 254 bytes";
        let email = email.map_err(|_| not_allowed("email", detail))?;
        if let Some(id) = &self.external_id {
            check_bytes("external_id", id, EXTERNAL_ID_BYTES_MAX)?;
        }
        if let Some(id) = &self.payment_method_id {
            check_payment_method(id)?;
        }
        if let Some(password) = &self.password {
            if !PASSWORD_CHARS.contains(&password.chars().count()) {
                return Err(not_allowed("password", "must have 8 to 256 characters"));
            }
            if email.is_none() {
                let detail = "is needed to log in with a password";
                return Err(Invalid { field: "email", code: "required", detail });
            }
        }
        let plan = match &self.plan {
            Some(name) => plans.get(name).ok_or(not_allowed("plan", "there is no such plan"))?,
            None => plans.free(),
        };
        Ok(CheckedUser {
            name: self.name,
            email,
            external_id: self.external_id,
            password: self.password,
            role: self.role,
            plan: plan.name.clone(),
            payment_method_id: self.payment_method_id,
        })
    }
}

impl CheckedUser {
    /// The plan they will be on.
    pub fn plan(&self) -> &PlanName {
        &self.plan
    }

    /// Whoever stands in the way, looked for before a password is hashed at some expense.
    async fn find_taken(&self, accounts: &dyn Accounts) -> Result<(), CreateError> {
        if let Some(external_id) = &self.external_id
            && let [Some(id)] = accounts.find_external(std::slice::from_ref(external_id)).await?[..]
            && let Some(user) = accounts.find(id).await?
        {
            return Err(CreateError::ExternalIdTaken(Box::new(user)));
        }
        if let Some(email) = &self.email
            && accounts.find_login(email).await?.is_some()
        {
            return Err(CreateError::EmailTaken);
        }
        Ok(())
    }
}

/// Makes a user and their subscription.
///
/// # Errors
/// [`CreateError`]: nothing was stored.
pub async fn create_user(
    accounts: &dyn Accounts,
    passwords: &Passwords,
    user: CheckedUser,
    now: Timestamp,
) -> Result<User, CreateError> {
    user.find_taken(accounts).await?;
    let password = match user.password {
        Some(password) => Some(passwords.hash(password).await?),
        None => None,
    };
    let new = NewUser {
        id: UserId::generate(now),
        name: user.name,
        email: user.email,
        external_id: user.external_id,
        role: user.role,
        password,
        plan: user.plan,
        payment_method_id: user.payment_method_id,
        now,
    };
    accounts.create(new).await
}

/// Why a key was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CreateKeyError {
    /// Name, scopes or expiry may not be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Try again.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Makes an API key. The text is shown once: only its digest is stored.
///
/// # Errors
/// [`CreateKeyError`]: nothing was stored.
pub async fn create_key(
    keys: &dyn ApiKeys,
    name: &str,
    scopes: Scopes,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(ApiKey, String), CreateKeyError> {
    check_name("name", name)?;
    if scopes == Scopes::default() {
        let detail = "a key without a scope may nothing";
        return Err(Invalid { field: "scopes", code: "required", detail }.into());
    }
    if expires_at.is_some_and(|end| end <= now) {
        return Err(not_allowed("expires_at", "must be in the future").into());
    }
    let (id, text, digest) = edge::api_key::issue(rand::random(), rand::random());
    let name = name.to_owned();
    let key = ApiKey { id, name, scopes, digest, created_at: now, expires_at, revoked_at: None };
    keys.create(key.clone()).await?;
    Ok((key, text))
}

/// Checks the id of a payment method.
///
/// # Errors
/// [`Invalid`].
pub(super) fn check_payment_method(id: &str) -> Result<(), Invalid> {
    check_bytes("payment_method_id", id, PAYMENT_METHOD_BYTES_MAX)
}

fn check_name(field: &'static str, name: &str) -> Result<(), Invalid> {
    if name.trim().is_empty() {
        return Err(not_allowed(field, "must not be empty"));
    }
    if name.chars().count() > NAME_CHARS_MAX {
        let detail = "must have at most 200 characters";
        return Err(Invalid { field, code: "too_long", detail });
    }
    Ok(())
}

fn check_bytes(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(not_allowed(field, "must not be empty"));
    }
    if text.len() > bytes_max {
        return Err(Invalid { field, code: "too_long", detail: "is too long" });
    }
    Ok(())
}

fn not_allowed(field: &'static str, detail: &'static str) -> Invalid {
    Invalid { field, code: "not_allowed", detail }
}
