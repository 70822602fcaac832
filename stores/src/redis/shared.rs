//! What every part of the counter works with: the server, the settings, the time.

use std::num::NonZeroU32;
use std::sync::Arc;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::Clock;
use metering::usage::Partition;
use redis::Value;

use super::library::Function;
use super::link::{Call, Link, Server};
use super::wire::{self, Served, Status};
use super::{CounterTime, RedisSettings, unavailable};

/// Units of work in one call: events, users, digests. Redis serves nobody else meanwhile, so too
/// many make others wait; too few cost a call each.
pub(super) const CALL_MAX: usize = 256;

/// Server, settings and clock.
pub(super) struct Shared {
    pub(super) server: Server,
    pub(super) settings: RedisSettings,
    pub(super) clock: Arc<dyn Clock>,
}

/// A function's reply: whether it did what it was asked, and the rest.
pub(super) struct Reply {
    pub(super) status: Status,
    pub(super) strings: Vec<Vec<u8>>,
}

impl Reply {
    /// The epoch that answered.
    pub(super) fn served(&self) -> Result<Served, Unavailable> {
        match self.status {
            Status::Served(served) => Ok(served),
            Status::NotOpen => Err(unavailable("the partition is not open")),
            Status::OtherIncarnation => Err(unavailable("the epoch is of another server's life")),
            Status::OtherNonce => Err(unavailable("the partition was opened anew")),
        }
    }

    /// One of the strings after the head.
    pub(super) fn string(&self, place: usize) -> Result<&[u8], Unavailable> {
        self.strings.get(place).map(Vec::as_slice).ok_or_else(wire::garbled)
    }
}

impl Shared {
    pub(super) fn partition_of(&self, user: UserId) -> Partition {
        partition_of(user, self.settings.partitions)
    }

    pub(super) fn key(&self, partition: Partition) -> String {
        wire::epoch_key(&self.settings.prefix, partition)
    }

    /// The argument that says what time it is; `0`: the server knows.
    pub(super) fn now(&self) -> Vec<u8> {
        match self.settings.time {
            CounterTime::Server => b"0".to_vec(),
            CounterTime::Clock => self.clock.now().as_millis().to_string().into_bytes(),
        }
    }

    pub(super) fn call(
        &self,
        function: Function,
        partition: Partition,
        arguments: Vec<Vec<u8>>,
    ) -> Call {
        Call { function, key: self.key(partition), arguments }
    }

    /// Runs one call.
    pub(super) async fn run_one(&self, call: Call) -> Result<Reply, Unavailable> {
        let mut replies = self.run(&[call]).await?;
        replies.pop().unwrap_or_else(|| Err(wire::garbled()))
    }

    /// Runs calls in order over one connection; an error of one is not one of the others.
    pub(super) async fn run(
        &self,
        calls: &[Call],
    ) -> Result<Vec<Result<Reply, Unavailable>>, Unavailable> {
        let link = self.server.link().await?;
        let answers = self.server.run(&link, calls).await;
        let replies: Vec<_> = answers.into_iter().map(|answer| read(answer?)).collect();
        self.note(&link, &replies).await;
        Ok(replies)
    }

    async fn note(&self, link: &Link, replies: &[Result<Reply, Unavailable>]) {
        let other = |reply: &Result<Reply, Unavailable>| {
            reply.as_ref().is_ok_and(|reply| reply.status == Status::OtherIncarnation)
        };
        if replies.iter().any(other) {
            self.server.suspect(link).await;
        }
    }
}

fn read(answer: Value) -> Result<Reply, Unavailable> {
    let mut strings = wire::strings(answer)?;
    let status = wire::status(strings.first())?;
    strings.remove(0);
    Ok(Reply { status, strings })
}

/// Hashes only when there is a choice.
pub(super) fn partition_of(user: UserId, count: NonZeroU32) -> Partition {
    if count.get() == 1 { Partition::SINGLE } else { Partition::of(user, count) }
}
