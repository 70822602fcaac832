//! Under which name a partition's counter serves, as every process must know it.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::Unavailable;
use crate::usage::Partition;

/// The name of one life of a partition's counter. A counter that outlived its replacement is known
/// by its old name, and what it lets in is not published.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Which life of which server.
    pub incarnation: String,
    /// Drawn anew each time the partition is closed.
    pub nonce: u64,
}

/// The names in force, kept where they outlive every counter. One for each partition.
#[async_trait]
pub trait Epochs: Send + Sync {
    /// Names the partition's epoch. When this answers, every later [`Self::announced`] has it. `true`:
    /// the partition never had a name before, so nobody has published for it; of several who announce
    /// at once only one is told so.
    async fn announce(&self, partition: Partition, epoch: &Epoch) -> Result<bool, Unavailable>;

    /// All names in force.
    async fn announced(&self) -> Result<BTreeMap<Partition, Epoch>, Unavailable>;

    /// Whether the log whose partitions these are is left for another, or is about to be: then nothing
    /// may be let in that no epoch vouches for.
    async fn log_is_left(&self) -> Result<bool, Unavailable>;
}
