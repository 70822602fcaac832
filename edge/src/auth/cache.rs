//! Verdicts on credentials, so that a request costs neither a signature check nor a query.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use metering::accounts::{ApiKeyId, UserId};
use metering::time::Timestamp;

use super::Caller;

/// SHA-256 of a credential: the cache holds no secrets.
pub(super) type CredentialDigest = [u8; 32];

/// How many verdicts are kept, at about 200 bytes each. Fewer make more users pay for a signature
/// check and a query on each call; more hold memory for credentials that are not used any more.
const VERDICTS_MAX: usize = 50_000;

/// Whom a verdict is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    User(UserId),
    Key(ApiKeyId),
}

impl From<&Caller> for Subject {
    fn from(caller: &Caller) -> Self {
        match caller {
            Caller::User { id, .. } => Self::User(*id),
            Caller::Service { key, .. } => Self::Key(key.clone()),
        }
    }
}

/// A good credential: whose it is, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) caller: Caller,
    /// `None`: until it is revoked.
    pub(super) expires_at: Option<Timestamp>,
}

impl Verdict {
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// The state of the world before a verdict was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u64);

#[derive(Default)]
struct Inner {
    verdicts: HashMap<CredentialDigest, Verdict>,
    by_subject: HashMap<Subject, Vec<CredentialDigest>>,
    generation: u64,
}

/// The verdicts of late.
pub(super) struct VerdictCache {
    inner: RwLock<Inner>,
    verdicts_max: usize,
}

impl Default for VerdictCache {
    fn default() -> Self {
        Self::with_room_for(VERDICTS_MAX)
    }
}

impl VerdictCache {
    pub(super) fn with_room_for(verdicts_max: usize) -> Self {
        Self { inner: RwLock::default(), verdicts_max }
    }

    pub(super) fn get(&self, digest: &CredentialDigest) -> Option<Verdict> {
        self.read().verdicts.get(digest).cloned()
    }

    /// To be taken before the stores are asked.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.read().generation)
    }

    /// Keeps a verdict, unless something was forgotten since `asked_at`: it may be what the
    /// verdict rests on, and would then stay for ever.
    pub(super) fn insert(
        &self,
        digest: CredentialDigest,
        verdict: Verdict,
        asked_at: Generation,
        now: Timestamp,
    ) {
        let mut inner = self.write();
        if inner.generation != asked_at.0 {
            return;
        }
        if inner.verdicts.len() >= self.verdicts_max {
            inner.make_room(self.verdicts_max, now);
        }
        let subject = Subject::from(&verdict.caller);
        if inner.verdicts.insert(digest, verdict).is_none() {
            inner.by_subject.entry(subject).or_default().push(digest);
        }
    }

    /// Drops all verdicts about `subject`, also those that are being looked for right now.
    pub(super) fn forget(&self, subject: &Subject) {
        let mut inner = self.write();
        inner.generation += 1;
        for digest in inner.by_subject.remove(subject).unwrap_or_default() {
            inner.verdicts.remove(&digest);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.read().verdicts.len()
    }

    // A panic while the lock is held leaves a smaller cache at worst.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Lets go of expired verdicts, and of every second one when that is not enough: seldom, and
    /// in one pass.
    fn make_room(&mut self, verdicts_max: usize, now: Timestamp) {
        self.verdicts.retain(|_, verdict| !verdict.has_expired(now));
        if self.verdicts.len() > verdicts_max / 2 {
            let mut stays = false;
            self.verdicts.retain(|_, _| {
                stays = !stays;
                stays
            });
        }
        let verdicts = &self.verdicts;
        self.by_subject.retain(|_, digests| {
            digests.retain(|digest| verdicts.contains_key(digest));
            !digests.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metering::accounts::Role;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn verdict(number: u8, expires_at: Option<i64>) -> Verdict {
        let caller = Caller::User { id: UserId::from_bytes([number; 16]), role: Role::User };
        Verdict { caller, expires_at: expires_at.map(Timestamp::from_millis) }
    }

    fn insert(cache: &VerdictCache, number: u8, expires_at: Option<i64>) {
        cache.insert([number; 32], verdict(number, expires_at), cache.generation(), NOW);
    }

    #[test]
    fn forgetting_one_subject_leaves_the_others() {
        let cache = VerdictCache::default();
        insert(&cache, 1, None);
        insert(&cache, 2, None);
        cache.insert([3; 32], verdict(1, None), cache.generation(), NOW);
        cache.forget(&Subject::User(UserId::from_bytes([1; 16])));
        assert_eq!(cache.get(&[1; 32]), None);
        assert_eq!(cache.get(&[3; 32]), None);
        assert_eq!(cache.get(&[2; 32]), Some(verdict(2, None)));
    }

    #[test]
    fn a_verdict_from_before_a_change_is_not_kept() {
        let cache = VerdictCache::default();
        let before = cache.generation();
        cache.forget(&Subject::User(UserId::from_bytes([1; 16])));
        cache.insert([1; 32], verdict(1, None), before, NOW);
        assert_eq!(cache.get(&[1; 32]), None);
    }

    #[test]
    fn expired_verdicts_go_first_and_room_is_bounded() {
        let cache = VerdictCache::with_room_for(8);
        for number in 0..6 {
            insert(&cache, number, Some(NOW.as_millis()));
        }
        insert(&cache, 6, None);
        insert(&cache, 7, None);
        insert(&cache, 8, None);
        assert_eq!(cache.len(), 3);
        for number in 10..200 {
            insert(&cache, number, None);
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.read().by_subject.len(), cache.len());
    }
}
