//! How fast the ledger on SQLite is:
//! `cargo run -p stores --release --example ledger_speed -- [EVENTS] [USERS] [BATCH] [1]`.
//!
//! Counts EVENTS events over 30 days in batches, as the aggregator does, and then asks what the
//! services ask, unless a fourth argument says to count only. Times are of this machine and its disk.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for developers, which measures real time and ends at the first error"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::{Period, Timestamp};
use metering::usage::{
    AdmittedEvent, AnalyticsQuery, Books, Dimension, EventId, Flags, Granularity, HistoryQuery,
    Horizon, IdDigest, IdOrigin, LedgerLookup, LogRecord, ModelName, Offset, Partition, Payload,
    RequestType, TokenCounts, UsageEvent, UsageLedger, UsageReports, fold,
};
use rusqlite::{Connection, params};
use stores::sqlite::SqliteLedger;

const DAYS: u64 = 30;
const START: i64 = 1_790_812_800_000; // 2026-10-01
const MODELS: [&str; 4] = ["gpt-3.5-turbo", "gpt-4", "gpt-4-turbo", "gpt-4o-mini"];

struct Load {
    events: u64,
    users: u64,
    batch: u64,
}

/// Repeatable and well mixed: the finalizer of SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn user(number: u64) -> UserId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mixed(number).to_be_bytes());
    UserId::from_bytes(bytes)
}

fn event_id(offset: u64) -> EventId {
    let (high, low) = (mixed(offset), mixed(!offset));
    EventId::new(&format!("{high:016x}-{low:016x}")).unwrap()
}

impl Load {
    fn time(&self, offset: u64) -> Timestamp {
        let passed = DAYS * 86_400_000 / self.events.max(1) * offset;
        Timestamp::from_millis(START + i64::try_from(passed).unwrap())
    }

    fn record(&self, offset: u64) -> LogRecord {
        let (chance, now) = (mixed(offset), self.time(offset));
        let few = |bits: u32| u32::try_from(chance >> bits & 0xfff).unwrap();
        let event = UsageEvent {
            user_id: user(mixed(chance) % self.users),
            event_id: event_id(offset),
            id_origin: IdOrigin::Client,
            request_type: RequestType::from_number(chance % 8 % 3).unwrap(),
            model: ModelName::new(MODELS[usize::try_from(chance >> 8 & 3).unwrap()]),
            tokens: TokenCounts { prompt: few(16), completion: few(28), cached: 0, reasoning: 0 },
            occurred_at: now,
            occurred_at_given: true,
            received_at: now,
            reservation_id: None,
            metadata: None,
        };
        let admitted = AdmittedEvent {
            id_digest: event.id_digest(),
            content_digest: event.content_digest(),
            plan: PlanName::new("professional"),
            admitted_at: now,
            flags: Flags::default(),
            over_hold: 0,
            event,
        };
        let payload = Payload::Event(Box::new(admitted));
        LogRecord { offset: Offset::new(offset), log_time: now, payload }
    }
}

fn report(what: &str, count: u64, took: Duration) {
    let each = took.as_secs_f64() * 1e6 / (count.max(1) as f64);
    let rate = count as f64 / took.as_secs_f64();
    println!("{what:<58} {count:>9}  {each:>9.2} µs each  {rate:>10.0}/s");
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    resident.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

/// CPU seconds of this process, all threads.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

async fn count_all(ledger: &SqliteLedger, load: &Load) {
    let mut position = ledger.take_over(Partition::SINGLE).await.unwrap().position.number();
    let (mut knowing, mut folding, mut committing) =
        (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut slowest, mut since, mut since_count, cpu_before) =
        (Duration::ZERO, Instant::now(), 0, cpu());
    let first = position;
    while position < load.events {
        let end = load.events.min(position + load.batch);
        let records: Vec<_> = (position..end).map(|offset| load.record(offset)).collect();
        let start = Instant::now();
        let seen = ledger.seen(Partition::SINGLE, Horizon::Ever, &records).await.unwrap();
        assert!(seen.is_empty());
        knowing += start.elapsed();
        let start = Instant::now();
        let flush = fold(Partition::SINGLE, Horizon::Ever, records, &seen).unwrap();
        folding += start.elapsed();
        let start = Instant::now();
        ledger.commit(flush).await.unwrap();
        let took = start.elapsed();
        committing += took;
        slowest = slowest.max(took);
        since_count += end - position;
        position = end;
        if since_count >= 1_000_000 {
            report("  in between: all together, generating included", since_count, since.elapsed());
            (since, since_count) = (Instant::now(), 0);
        }
    }
    let count = position - first;
    report("known, ids never seen, in batches", count, knowing);
    report("fold", count, folding);
    report("commit", count, committing);
    println!("slowest commit {slowest:?}; memory {}; CPU {:?}", memory(), cpu() - cpu_before);
}

/// What the ids would cost as a primary key in the flush's own transaction.
fn ids_as_primary_key(directory: &Path, load: &Load, sorted: bool) {
    let open = Connection::open(directory.join(format!("ids-in-place-{sorted}.db"))).unwrap();
    open.pragma_update(None, "journal_mode", "wal").unwrap();
    open.pragma_update(None, "synchronous", "normal").unwrap();
    open.pragma_update(None, "cache_size", -32 * 1024).unwrap();
    open.execute_batch(
        "CREATE TABLE ids (digest BLOB PRIMARY KEY, offset INTEGER, content BLOB) WITHOUT ROWID",
    )
    .unwrap();
    let (mut last, mut took) = (Duration::ZERO, Duration::ZERO);
    for start in (0..load.events).step_by(usize::try_from(load.batch).unwrap()) {
        let mut ids: Vec<_> = (start..load.events.min(start + load.batch))
            .map(|offset| (IdDigest::of_event(user(1), &event_id(offset)).0, offset))
            .collect();
        let begun = Instant::now();
        if sorted {
            ids.sort_unstable();
        }
        open.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut insert = open.prepare_cached("INSERT INTO ids VALUES (?, ?, ?)").unwrap();
        for (digest, offset) in ids {
            let offset = i64::try_from(offset).unwrap();
            insert.execute(params![digest, offset, [0_u8; 8]]).unwrap();
        }
        open.execute_batch("COMMIT").unwrap();
        took += begun.elapsed();
        if start < load.events - load.events / 5 {
            last = took;
        }
    }
    let sorting = if sorted { "sorted by batch" } else { "as they come" };
    report(&format!("ids as a primary key, {sorting}"), load.events, took);
    report("  of these the last fifth", load.events / 5, took - last);
}

async fn timed<T>(what: &str, times: u64, mut ask: impl AsyncFnMut(u64) -> T) {
    let mut took = Vec::new();
    for turn in 0..times {
        let start = Instant::now();
        ask(turn).await;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    println!("{what:<58} p50 {:>10.1?}  p99 {:>10.1?}  max {:>10.1?}", at(50), at(99), at(100));
}

async fn ask(ledger: &SqliteLedger, load: &Load) {
    let any = |turn: u64| mixed(turn ^ 0x5eed) % load.users;
    let october = Period::of(Timestamp::from_millis(START));
    // The filter is filled in the background after a start.
    tokio::time::sleep(Duration::from_secs(10)).await;
    timed("known, one new id", 20_000, async |turn| {
        let id = IdDigest::of_event(user(1), &event_id(turn + (1 << 40)));
        ledger.known(&[(user(1), id)]).await.unwrap();
    })
    .await;
    timed("known, one old id", 5_000, async |turn| {
        let record = load.record(mixed(turn) % load.events);
        let Payload::Event(old) = record.payload else { return };
        let known = ledger.known(&[(old.event.user_id, old.id_digest)]).await.unwrap();
        assert!(known.found[0].is_some());
    })
    .await;
    timed("totals of 1 user", 2_000, async |turn| {
        ledger.totals(&[(user(any(turn)), october)]).await.unwrap();
    })
    .await;
    timed("totals of 1000 users", 50, async |turn| {
        let users: Vec<_> = (0..1000).map(|n| (user(any(turn * 1000 + n)), october)).collect();
        ledger.totals(&users).await.unwrap();
    })
    .await;
    timed("one user's month", 2_000, async |turn| {
        ledger.monthly(user(any(turn)), october).await.unwrap();
    })
    .await;
    let page = |turn| HistoryQuery {
        user_id: user(any(turn)),
        from: None,
        to: Some(load.time(mixed(turn) % load.events)),
        model: None,
        request_type: None,
        after: None,
        rows_max: 51,
    };
    timed("history, 51 rows from anywhere", 2_000, async |turn| {
        ledger.history(&page(turn)).await.unwrap();
    })
    .await;
    timed("history, 51 rows of one model", 1_000, async |turn| {
        let query = HistoryQuery { model: Some(ModelName::new(MODELS[0])), ..page(turn) };
        ledger.history(&query).await.unwrap();
    })
    .await;
    let question = |group_by: Vec<Dimension>, top| AnalyticsQuery {
        from: Timestamp::from_millis(START + 1_234_567),
        to: load.time(load.events - 1),
        granularity: Granularity::Day,
        group_by,
        model: None,
        plan: None,
        request_type: None,
        user_id: None,
        top,
    };
    timed("analytics of 30 days by model", 10, async |_| {
        ledger.analytics(&question(vec![Dimension::Model], 0)).await.unwrap();
    })
    .await;
    timed("analytics of 30 days by model, 10 top users", 5, async |_| {
        ledger.analytics(&question(vec![Dimension::Model], 10)).await.unwrap();
    })
    .await;
}

async fn balance(ledger: &SqliteLedger) {
    timed("books: R2", 1, async |_| ledger.raw().await.unwrap()).await;
    timed("books: R3", 1, async |_| assert_eq!(ledger.summaries().await.unwrap().1, [])).await;
    timed("books: R4", 1, async |_| assert_eq!(ledger.statistics().await.unwrap().1, [])).await;
    println!("memory {}", memory());
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap());
    let load = Load {
        events: arguments.next().unwrap_or(1_000_000),
        users: arguments.next().unwrap_or(1_000),
        batch: arguments.next().unwrap_or(4_000),
    };
    println!("{} events of {} users in batches of {}", load.events, load.users, load.batch);
    let directory = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(directory.path()).unwrap();
    count_all(&ledger, &load).await;
    if arguments.next().is_some() {
        return;
    }
    let crashed = tempfile::tempdir().unwrap();
    for file in ["ledger.db", "ledger.db-wal", "ids.db", "ids.db-wal"] {
        let (from, to) = (directory.path().join(file), crashed.path().join(file));
        std::fs::copy(from, to).unwrap();
    }
    let start = Instant::now();
    drop(ledger);
    println!("closed in {:?}", start.elapsed());
    for (what, directory) in [("closed", &directory), ("killed", &crashed)] {
        let start = Instant::now();
        let ledger = SqliteLedger::open(directory.path()).unwrap();
        println!("opened after it was {what} in {:?}; memory {}", start.elapsed(), memory());
        ask(&ledger, &load).await;
        balance(&ledger).await;
        if what == "closed" {
            for file in ["ledger.db", "ids.db"] {
                let bytes = std::fs::metadata(directory.path().join(file)).unwrap().len();
                println!("{file}: {} bytes an event", bytes / load.events);
            }
        }
    }
    ids_as_primary_key(directory.path(), &load, false);
    ids_as_primary_key(directory.path(), &load, true);
}
