//! The single node's quota counter: a lock around the admission state machine.

mod quota_counter;

pub use quota_counter::MemoryQuotaCounter;
