//! Argon2id, off the async workers and a few at a time.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use metering::Unavailable;
use metering::accounts::PasswordHash;
use tokio::sync::Semaphore;

/// Memory of one hash, in KiB (OWASP's first choice for Argon2id: 19 MiB, t = 2, p = 1). Less helps
/// whoever steals the hashes; more makes each login cost that much memory.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Compared when there is no such account, so that the answer takes as long. No password has an
/// output of zeros.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2Q\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes and verifies passwords.
pub struct Passwords {
    permits: Arc<Semaphore>,
}

impl Passwords {
    /// At most `concurrency` hashes at once (one for each core): each takes 19 MiB and a core.
    pub fn new(concurrency: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(concurrency.max(1))) }
    }

    /// A PHC string of the password with a random salt.
    ///
    /// # Errors
    /// [`Unavailable`] when the process has no memory or is stopping.
    pub async fn hash(&self, password: String) -> Result<PasswordHash, Unavailable> {
        self.run(move || {
            let salt: [u8; 16] = rand::random();
            let hash = argon2()?.hash_password_with_salt(password.as_bytes(), &salt);
            Ok(PasswordHash(hash.map_err(failed)?.to_string()))
        })
        .await
    }

    /// Whether `password` is the one of `known`. Without one it takes as long and is `false`.
    ///
    /// # Errors
    /// [`Unavailable`] when the process has no memory or is stopping.
    pub async fn verify(
        &self,
        password: String,
        known: Option<PasswordHash>,
    ) -> Result<bool, Unavailable> {
        self.run(move || {
            let hash = known.as_ref().map_or(NOBODY, |known| known.0.as_str());
            let matches = argon2()?.verify_password(password.as_bytes(), hash).is_ok();
            Ok(matches && known.is_some())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Unavailable> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(failed)?;
        let hashed = tokio::task::spawn_blocking(move || {
            let outcome = work();
            // Held until the work is done, also when the client has gone away.
            drop(permit);
            outcome
        });
        hashed.await.map_err(failed)?
    }
}

fn argon2() -> Result<Argon2<'static>, Unavailable> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn failed(error: impl std::fmt::Display) -> Unavailable {
    Unavailable::new("passwords", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_an_account_is_good() {
        let passwords = Passwords::new(2);
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        assert!(passwords.verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("correct Horse".into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("correct horse".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn two_hashes_of_a_password_differ() {
        let passwords = Passwords::new(1);
        let one = passwords.hash("the same".into()).await.unwrap();
        assert_ne!(one, passwords.hash("the same".into()).await.unwrap());
    }

    #[test]
    fn nobody_is_compared_at_the_same_cost() {
        use argon2::PasswordHash as Phc;
        let nobody = Phc::new(NOBODY).unwrap();
        assert_eq!(Params::try_from(&nobody).unwrap().m_cost(), MEMORY_KIB);
        assert_eq!(nobody.hash.unwrap().as_bytes(), [0; 32]);
    }
}
