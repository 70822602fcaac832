//! Users, their credentials, subscriptions and preferences; API keys of the installation.

mod api_key;
mod ports;
mod subscription;
mod user;

pub use api_key::{ApiKey, ApiKeyId, Scope, Scopes};
pub use ports::{
    Accounts, AddressKey, ApiKeys, Change, ChangeFeed, ChangeKind, CreateError, LoginAttempts,
    NewUser, PreferenceStore, Rotation, Sessions, SigningKey, SigningKeys, Subscriptions, UserPage,
    UserQuery, WRONG_PASSWORDS_KEPT_FOR,
};
pub use subscription::{
    Preferences, PreferencesChange, Subscription, SubscriptionChange, SubscriptionStatus, Theme,
};
pub use user::{Email, NotAnEmail, PasswordHash, Role, User, UserId, uuid_at};
