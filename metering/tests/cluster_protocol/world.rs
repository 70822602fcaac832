//! The state of the modelled cluster and its clients.

use std::collections::BTreeMap;
use std::time::Duration;

use metering::quota::{Grant, Totals};
use metering::time::Timestamp;
use metering::usage::{ContentDigest, Offset, SummaryKey};

use super::campaign::world::Violation;
pub(crate) use super::campaign::world::offset;
use super::log::{Log, Sending};
use super::owner::Aggregator;
use super::redis::{Keyspace, Server};
use super::setup::{Setup, start};
use super::stores::{Book, LateCommit, LateInsert, RawRow, Running};

/// A process that takes events.
#[derive(Clone, Debug)]
pub(crate) struct Ingest {
    /// Which server it is connected to, and in which life of it; an older life: to nothing.
    pub(crate) server: usize,
    pub(crate) life: u64,
    /// Which life it believes that it has reached.
    pub(crate) believed: u64,
    /// When its latest look at the feed began, by its own clock, and what it saw.
    pub(crate) looked_at: Timestamp,
    pub(crate) feed: Vec<Announced>,
}

/// The name of a partition's epoch, as the feed tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) life: u64,
    pub(crate) nonce: u64,
}

/// A request for one event.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) number: u32,
    pub(crate) event: usize,
    pub(crate) content: usize,
    pub(crate) ingest: usize,
    /// It was counted before this request came: it must not be refused.
    pub(crate) is_known: bool,
    pub(crate) stage: Stage,
}

/// How far a request is.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    Arrived,
    /// The counter that answered does not know the user; its epoch.
    Missing {
        nonce: u64,
    },
    /// The totals were read, with the cursor they stand at.
    Read {
        nonce: u64,
        totals: Totals,
        cursor: Offset,
    },
    /// Let in, under that epoch.
    Granted {
        grant: Grant,
        under: Announced,
    },
    /// Let in without a counter.
    Unmetered {
        grant: Grant,
    },
    /// Not let in: the ledger is asked.
    Refusing,
    /// Handed to the log.
    Waiting,
    /// The log took it at that time.
    Stored {
        lapsed: bool,
    },
}

/// What the clients know of an event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    pub(crate) tries: u8,
    pub(crate) stamp: Option<Timestamp>,
    pub(crate) acknowledged: Option<ContentDigest>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) now: Timestamp,
    /// The log's time is behind by this.
    pub(crate) log_back: Duration,
    pub(crate) clients: Vec<Client>,
    pub(crate) requests: Vec<Request>,
    pub(crate) next_request: u32,
    pub(crate) sending: Vec<Sending>,
    pub(crate) logs: Vec<Log>,
    pub(crate) servers: [Server; 2],
    /// Whom new connections reach.
    pub(crate) master: usize,
    /// What a server may come back with.
    pub(crate) snapshots: Vec<Vec<Keyspace>>,
    pub(crate) lives: u64,
    pub(crate) nonces: u64,
    pub(crate) ingests: Vec<Ingest>,
    pub(crate) aggregators: Vec<Aggregator>,
    pub(crate) serials: u32,
    /// Postgres, by partition.
    pub(crate) books: Vec<Book>,
    /// ClickHouse: events by partition and offset, and summaries.
    pub(crate) raw: BTreeMap<(usize, usize), RawRow>,
    pub(crate) summaries: BTreeMap<SummaryKey, Running>,
    pub(crate) late_inserts: Vec<LateInsert>,
    pub(crate) late_commits: Vec<LateCommit>,
    pub(crate) ticks: u8,
    /// No more trouble: everything comes to rest.
    pub(crate) is_calm: bool,
    pub(crate) violation: Option<Violation>,
    /// What happened, to see that schedules reach it.
    pub(crate) marks: Vec<&'static str>,
}

impl World {
    /// One server serves all partitions, all processes are connected to it, nothing is counted.
    pub(crate) fn new(setup: Setup) -> Self {
        let shape = &setup.shape;
        let now = start();
        let first = Announced { life: 1, nonce: 1 };
        let open = || Keyspace::open_at_the_start(first);
        let serving =
            Server { life: 1, keyspaces: (0..shape.partitions).map(|_| open()).collect() };
        let other = Server { life: 2, keyspaces: Keyspace::none(shape.partitions) };
        let ingest = Ingest {
            server: 0,
            life: 1,
            believed: 1,
            looked_at: now,
            feed: vec![first; shape.partitions],
        };
        Self {
            now,
            log_back: Duration::ZERO,
            clients: setup
                .events
                .iter()
                .map(|event| Client { tries: event.tries, ..Client::default() })
                .collect(),
            requests: Vec::new(),
            next_request: 0,
            sending: Vec::new(),
            logs: (0..shape.partitions).map(|_| Log::new(shape.horizons[0])).collect(),
            servers: [serving, other],
            master: 0,
            snapshots: Vec::new(),
            lives: 2,
            nonces: 1,
            ingests: vec![ingest; shape.ingests],
            aggregators: (0..shape.aggregators)
                .map(|_| Aggregator::new(shape.partitions, first))
                .collect(),
            serials: 0,
            books: (0..shape.partitions)
                .map(|partition| Book::new(partition, shape.horizons[0], first))
                .collect(),
            raw: BTreeMap::new(),
            summaries: BTreeMap::new(),
            late_inserts: Vec::new(),
            late_commits: Vec::new(),
            ticks: shape.ticks,
            is_calm: false,
            violation: None,
            marks: Vec::new(),
            setup,
        }
    }

    /// Whether a connection to a server still reaches that life of it.
    pub(crate) fn is_linked(&self, server: usize, life: u64) -> bool {
        self.servers[server].life == life
    }

    /// What the feed tells at this moment.
    pub(crate) fn feed(&self) -> Vec<Announced> {
        self.books.iter().map(|book| book.announced).collect()
    }

    /// The clock of a server.
    pub(crate) fn server_time(&self, server: usize) -> Timestamp {
        self.now.plus(self.setup.ahead(self.servers[server].life))
    }
}

pub(crate) fn place(offset: Offset) -> usize {
    usize::try_from(offset.number()).unwrap()
}
