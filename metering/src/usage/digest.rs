//! The digests by which stores and counters know an event again.

use std::hash::{Hash, Hasher};

use super::event::{EventId, ModelName, RequestType, ReservationId, TokenCounts};
use crate::accounts::UserId;

/// The first 16 bytes of BLAKE3(user id, 0, id): which event (or hold) this is, for ever.
///
/// The digests of holds are made from another prefix, so the two name spaces never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdDigest(pub [u8; 16]);

impl Hash for IdDigest {
    /// Half of it: what is a digest already needs no more to spread, and counting an event hashes
    /// its id many times.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl IdDigest {
    /// The digest of an event id. Fixed for ever: there are test vectors.
    pub fn of_event(user: UserId, id: &EventId) -> Self {
        Self::over(user, 0, id.as_str())
    }

    /// The digest of a reservation id.
    pub fn of_hold(user: UserId, id: &ReservationId) -> Self {
        Self::over(user, 1, id.as_str())
    }

    fn over(user: UserId, name_space: u8, id: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(user.as_bytes()).update(&[name_space]).update(id.as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(first)
    }
}

/// The first 8 bytes of BLAKE3 over request type, model and the four counts: two events with the
/// same id are *the same* when these agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentDigest(pub [u8; 8]);

impl ContentDigest {
    /// The digest of an event's content. Fixed for ever: there are test vectors.
    pub fn of_event(request_type: RequestType, model: &ModelName, tokens: TokenCounts) -> Self {
        let counts = [tokens.prompt, tokens.completion, tokens.cached, tokens.reasoning];
        Self::over(request_type, model, &counts.map(u64::from))
    }

    /// The digest of a hold's content: type, model and the tokens held.
    pub fn of_hold(request_type: RequestType, model: &ModelName, tokens: u64) -> Self {
        Self::over(request_type, model, &[tokens])
    }

    fn over(request_type: RequestType, model: &ModelName, counts: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(request_type.as_str().as_bytes()).update(&[0]);
        hasher.update(model.as_str().as_bytes()).update(&[0]);
        for count in counts {
            hasher.update(&count.to_le_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Self(first)
    }
}
