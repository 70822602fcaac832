//! The receiver of alerts: an HTTP endpoint of the operator, told as
//! [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md)
//! has it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aggregator::{AlertReceiver, Message};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use metering::time::{Clock, Timestamp};
use sha2::Sha256;

/// One attempt, its answer included: what Standard Webhooks asks senders to wait at least.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What secrets begin with; base64 of the key follows.
const SECRET_PREFIX: &str = "whsec_";

/// A key has so many bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What messages are signed with. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WebhookSecret(Vec<u8>);

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret")
    }
}

impl WebhookSecret {
    /// Reads the first line of a file; the error says what it must be.
    pub(crate) fn read(path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(Path::new(path))
            .map_err(|error| format!("the file cannot be read: {error}"))?;
        let first = text.lines().next().unwrap_or_default().trim();
        let key = first.strip_prefix(SECRET_PREFIX).and_then(|key| STANDARD.decode(key).ok());
        let key = key.filter(|key| KEY_BYTES.contains(&key.len())).ok_or_else(|| {
            "its first line must be whsec_ and the base64 of 24 to 64 random bytes".to_owned()
        })?;
        Ok(Self(key))
    }

    /// `v1,` and the base64 of HMAC-SHA256 over id, time and body, with dots between.
    fn sign(&self, id: &str, seconds: i64, body: &str) -> String {
        // HMAC takes keys of any length: there is no error.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{seconds}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// Where alerts are sent, as the settings have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebhookSettings {
    pub(crate) url: String,
    pub(crate) secret: WebhookSecret,
}

/// Checks the URL of a receiver; the error says what it must be.
pub(crate) fn url(text: &str) -> Result<String, String> {
    let uri: Option<axum::http::Uri> = text.parse().ok();
    let uri = uri.filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    match uri.as_ref().and_then(|uri| uri.scheme_str()) {
        Some("https") if cfg!(not(feature = "tls")) => {
            Err("this program is built without TLS: build it with --features tls, or use http://"
                .to_owned())
        }
        Some("http" | "https") => Ok(text.to_owned()),
        Some(_) | None => Err("must be a URL such as https://example.org/alerts".to_owned()),
    }
}

/// Posts to the receiver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Webhook {
    agent: ureq::Agent,
    settings: WebhookSettings,
    clock: Arc<dyn Clock>,
}

impl Webhook {
    pub(crate) fn new(settings: WebhookSettings, clock: Arc<dyn Clock>) -> Self {
        let builder = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect is no answer: the message must reach whom the settings name.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("tokenmeter/", env!("CARGO_PKG_VERSION")));
        #[cfg(feature = "tls")]
        let builder = builder.tls_config(
            // The authorities of the machine, so that an internal one counts.
            ureq::tls::TlsConfig::builder()
                .root_certs(ureq::tls::RootCerts::PlatformVerifier)
                .build(),
        );
        Self { agent: builder.build().new_agent(), settings, clock }
    }

    /// Posts on this thread. The error is for people.
    pub(crate) fn post(&self, message: &Message) -> Result<(), String> {
        let WebhookSettings { url, secret } = &self.settings;
        let seconds = Timestamp::as_seconds(self.clock.now());
        let answer = self
            .agent
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", secret.sign(&message.id, seconds, &message.body))
            .send(&message.body);
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status())),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[async_trait]
impl AlertReceiver for Webhook {
    async fn send(&self, message: &Message) -> Result<(), String> {
        let (webhook, message) = (self.clone(), message.clone());
        let posting = tokio::task::spawn_blocking(move || webhook.post(&message));
        posting.await.map_err(|stopped| stopped.to_string())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<WebhookSecret, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), line).unwrap();
        WebhookSecret::read(file.path().to_str().unwrap())
    }

    /// The example of the specification's libraries
    /// (<https://github.com/standard-webhooks/standard-webhooks/tree/main/libraries>).
    #[test]
    fn a_message_is_signed_as_others_sign_it() {
        let secret = read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_a_key_of_24_to_64_bytes() {
        for wrong in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert!(read(wrong).unwrap_err().contains("whsec_"), "{wrong}");
        }
        assert!(WebhookSecret::read("/nowhere/secret").unwrap_err().contains("cannot be read"));
        let shown = format!("{:?}", read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        assert_eq!(shown, "WebhookSecret");
    }

    #[test]
    fn a_receiver_is_an_absolute_url() {
        assert!(url("http://127.0.0.1:9000/alerts").is_ok());
        assert_eq!(url("https://example.org/alerts").is_ok(), cfg!(feature = "tls"));
        for wrong in ["", "example.org/alerts", "/alerts", "ftp://example.org/", "http://"] {
            assert!(url(wrong).unwrap_err().contains("must be a URL"), "{wrong}");
        }
    }
}
