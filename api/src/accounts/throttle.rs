//! Slows down the guessing of passwords.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use edge::{ClientAddress, Code, Problem};
use metering::Unavailable;
use metering::accounts::{AddressKey, Email, LoginAttempts};
use metering::time::Timestamp;
use tokio::sync::{Mutex, MutexGuard};

/// The span in which wrong passwords are counted (API, section 2).
const SPAN: Duration = Duration::from_secs(15 * 60);

/// Wrong passwords for one account in [`SPAN`].
const PER_ACCOUNT: u32 = 10;

/// Wrong passwords from one client address in [`SPAN`]: more, since offices share one.
const PER_ADDRESS: u32 = 100;

/// Attempts on the same account go one after the other, so that many at once do not pass the
/// count together. Accounts that share one of these locks wait for each other, which few locks
/// would make felt.
const LOCKS: usize = 256;

/// Counts wrong passwords by account and by client address; right ones do not count.
pub struct LoginThrottle {
    attempts: Arc<dyn LoginAttempts>,
    locks: Vec<Mutex<()>>,
}

/// An attempt that may be made: the only one on its account while it lasts.
pub(super) struct Attempt<'a> {
    throttle: &'a LoginThrottle,
    keys: [AddressKey; 2],
    now: Timestamp,
    _only: MutexGuard<'a, ()>,
}

impl LoginThrottle {
    /// Counts in `attempts`.
    pub fn new(attempts: Arc<dyn LoginAttempts>) -> Self {
        Self { attempts, locks: (0..LOCKS).map(|_| Mutex::new(())).collect() }
    }

    /// Lets an attempt pass unless there were too many wrong ones.
    ///
    /// # Errors
    /// 429 `too_many_requests` with `Retry-After`; 503.
    pub(super) async fn admit(
        &self,
        email: &Email,
        client: ClientAddress,
        now: Timestamp,
    ) -> Result<Attempt<'_>, Problem> {
        let keys =
            [AddressKey::Account(email.key()), AddressKey::Client(network_of(client).to_string())];
        let only = self.lock_of(&keys[0]).lock().await;
        for (key, bound) in keys.iter().zip([PER_ACCOUNT, PER_ADDRESS]) {
            let (wrong, oldest) = self.attempts.count(key, now.minus(SPAN)).await?;
            if wrong >= bound {
                let wait = oldest.map_or(SPAN, |oldest| oldest.plus(SPAN).since(now));
                let detail = "too many wrong passwords: try again later";
                let seconds = wait.as_millis().div_ceil(1000).max(1);
                return Err(Problem::new(Code::TooManyRequests, detail)
                    .retry_after(u64::try_from(seconds).unwrap_or(SPAN.as_secs())));
            }
        }
        Ok(Attempt { throttle: self, keys, now, _only: only })
    }

    fn lock_of(&self, key: &AddressKey) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let [byte, ..] = hasher.finish().to_be_bytes();
        &self.locks[usize::from(byte) % LOCKS]
    }
}

impl Attempt<'_> {
    /// It was wrong.
    pub(super) async fn note_wrong(self) -> Result<(), Unavailable> {
        for key in &self.keys {
            self.throttle.attempts.note(key, self.now).await?;
        }
        Ok(())
    }
}

/// One IPv6 client has a /64 of its own: counted by address it could go on for ever.
fn network_of(ClientAddress(address): ClientAddress) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let network = |text: &str| network_of(ClientAddress(text.parse().unwrap())).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
