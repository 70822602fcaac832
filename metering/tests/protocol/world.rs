//! The state of the modelled node and its clients, and the promises checked on the way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::{Counter, Grant, Synced, Totals};
use metering::time::{Period, Timestamp};
use metering::usage::{
    AdmittedEvent, ContentDigest, Flush, IdDigest, KnownEvent, LogRecord, Offset, RequestType,
    SummaryKey, Sums,
};

use super::campaign::world::Violation;
pub(crate) use super::campaign::world::offset;
use super::setup::Setup;

/// A request for one event, on its way through the door.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) number: u32,
    /// Which of the setup's events.
    pub(crate) event: usize,
    /// Which of its contents.
    pub(crate) content: usize,
    /// Refused already for another reason, such as its age.
    pub(crate) barred: bool,
    pub(crate) occurred_at: Timestamp,
    /// It was acknowledged or counted before this request came: it must not be refused.
    pub(crate) is_repeat: bool,
    pub(crate) stage: Stage,
}

/// How far a request is.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    Arrived,
    /// The ledger did not know it, below this cursor.
    Looked(Offset),
    /// The counter does not know the user's totals.
    Missing(Offset),
    /// They were read.
    Read {
        looked: Offset,
        totals: Totals,
        cursor: Offset,
    },
    /// Let in, but the ledger went on since the look.
    Doubtful {
        grant: Grant,
        is_new: bool,
    },
    /// Let in.
    Sound(Grant),
    /// Not let in: the ledger is asked once more.
    Refusing,
    /// Handed to the log.
    Waiting,
    /// The log reported that it is durable.
    Stored,
}

/// An admitted event on its way to the log.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) request: u32,
    pub(crate) admitted: AdmittedEvent,
}

/// What the clients know of an event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    pub(crate) tries: u8,
    pub(crate) sent: bool,
    /// The content that was acknowledged.
    pub(crate) acknowledged: Option<ContentDigest>,
}

/// What is stored of the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) cursor: usize,
    pub(crate) known: HashMap<IdDigest, KnownEvent>,
    pub(crate) totals: BTreeMap<(UserId, Period), Totals>,
    pub(crate) daily: BTreeMap<SummaryKey, Sums>,
}

/// A flush that is folded but not committed.
#[derive(Clone, Debug)]
pub(crate) struct Folded {
    pub(crate) flush: Flush,
    pub(crate) watermark: Timestamp,
}

/// What the log holds of one user's month, each event once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Logged {
    /// `over_hold` aside.
    pub(crate) tokens: u64,
    /// Those of a service that settled across months aside.
    pub(crate) requests: [u64; 3],
}

/// Everything.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) now: Timestamp,
    /// The machine's clock is behind by this.
    pub(crate) set_back: Duration,
    /// The log's time is behind by this.
    pub(crate) log_back: Duration,
    /// The log stamps by no earlier time, but for `log_back`.
    pub(crate) log_high: Timestamp,
    pub(crate) log: Vec<LogRecord>,
    /// Which content of an id stands first in the log: the one that counts.
    pub(crate) first: HashMap<IdDigest, ContentDigest>,
    pub(crate) logged: HashMap<(UserId, Period), Logged>,
    pub(crate) ledger: Ledger,
    /// The ledger before its latest commits: a power loss may bring it back.
    pub(crate) ledgers: VecDeque<Ledger>,
    /// Broken variant: the effects of a commit are stored, its cursor is not yet.
    pub(crate) cursor_to_move: Option<usize>,
    pub(crate) counter: Counter,
    pub(crate) is_open: bool,
    pub(crate) requests: Vec<Request>,
    pub(crate) next_request: u32,
    pub(crate) on_its_way: Vec<Sending>,
    pub(crate) folded: Option<Folded>,
    pub(crate) syncs: VecDeque<Synced>,
    pub(crate) clients: Vec<Client>,
    pub(crate) hold_tries: Vec<u8>,
    pub(crate) holds_made: Vec<bool>,
    /// Broken variant: when an entry was first admitted.
    pub(crate) first_admitted: HashMap<IdDigest, Timestamp>,
    pub(crate) terms_version: u64,
    pub(crate) crashes: u8,
    /// No more trouble: everything comes to rest.
    pub(crate) is_calm: bool,
    pub(crate) violation: Option<Violation>,
    /// What happened, to see that schedules reach it.
    pub(crate) marks: Vec<&'static str>,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let client = |tries| Client { tries, ..Client::default() };
        let mut world = Self {
            now: setup.start,
            set_back: Duration::ZERO,
            log_back: Duration::ZERO,
            log_high: Timestamp::MIN,
            log: Vec::new(),
            first: HashMap::new(),
            logged: HashMap::new(),
            ledger: Ledger::default(),
            ledgers: VecDeque::new(),
            cursor_to_move: None,
            counter: empty_counter(&setup),
            is_open: false,
            requests: Vec::new(),
            next_request: 0,
            on_its_way: Vec::new(),
            folded: None,
            syncs: VecDeque::new(),
            clients: setup.events.iter().map(|event| client(event.tries)).collect(),
            hold_tries: setup.holds.iter().map(|hold| hold.tries).collect(),
            holds_made: vec![false; setup.holds.len()],
            first_admitted: HashMap::new(),
            terms_version: 1,
            crashes: setup.crashes,
            is_calm: false,
            violation: None,
            marks: Vec::new(),
            setup,
        };
        world.open();
        world
    }

    /// The machine's clock.
    pub(crate) fn clock(&self) -> Timestamp {
        self.now.minus(self.set_back)
    }

    /// The log's time: it goes on from what it had reached when the machine's clock is set back.
    pub(crate) fn log_time(&mut self) -> Timestamp {
        self.log_high = self.log_high.max(self.clock());
        self.log_high.minus(self.log_back)
    }

    /// See `EventSource::watermark`.
    pub(crate) fn watermark(&mut self) -> Timestamp {
        if self.setup.rules.watermark_binds_the_log {
            return self.log_time();
        }
        self.log_high.max(self.clock()).minus(self.log_back)
    }

    /// What the ledger knows of an id, and the cursor of this look.
    pub(crate) fn look(&self, id: &IdDigest) -> (Offset, Option<KnownEvent>) {
        let cursor = offset(self.ledger.cursor);
        let current = self.setup.rules.looks_are_current;
        let seen = if current { None } else { self.ledgers.back() }.unwrap_or(&self.ledger);
        (cursor, seen.known.get(id).copied())
    }

    /// A record was stored: promises about the log as a whole.
    pub(crate) fn check_stored(&mut self, admitted: &AdmittedEvent) {
        if let Some(first) = self.first.get(&admitted.id_digest) {
            if *first == admitted.content_digest {
                self.mark("twice in the log");
            } else {
                self.violate("an id that was reused is not told at the door".into());
            }
            return;
        }
        self.first.insert(admitted.id_digest, admitted.content_digest);
        let event = &admitted.event;
        let across_months = admitted.over_hold == event.tokens.total();
        let month = self.logged.entry((event.user_id, event.period())).or_default();
        month.tokens += event.tokens.total() - admitted.over_hold;
        month.requests[event.request_type.index()] += u64::from(!across_months);
        let (tokens, requests) = (month.tokens, month.requests);
        if tokens > self.setup.token_limit {
            self.violate(format!("{tokens} tokens are in the log of a plan of less"));
        }
        for request_type in RequestType::ALL {
            let count = requests[request_type.index()];
            if self.setup.request_limit.is_some_and(|limit| count > limit) {
                self.violate(format!(
                    "{count} {request_type} requests in the log of a plan of less"
                ));
            }
        }
        let months = self.logged.keys().filter(|key| key.0 == event.user_id).count();
        if months == 2 {
            self.mark("both months");
        }
    }

    /// An acknowledgement promises that this very event is the one that counts.
    pub(crate) fn check_acknowledged(&mut self, event: usize, content: ContentDigest) {
        let spec = &self.setup.events[event];
        match self.first.get(&spec.id) {
            None => self.violate(format!("event {event} is acknowledged but not stored")),
            Some(first) if *first != content => {
                self.violate(format!(
                    "event {event} is acknowledged with a content that is not counted"
                ));
            }
            Some(_) => self.clients[event].acknowledged = Some(content),
        }
    }
}

pub(crate) fn empty_counter(setup: &Setup) -> Counter {
    Counter::new(NonZeroU32::MIN).with_users_max(setup.users_max)
}
