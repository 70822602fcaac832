//! What is sent: records that nobody can read, batches as large as they may be, events of two months,
//! and a whole trace.

use serde_json::{Value, json};

use crate::asking::{ask, expect};
use crate::cluster::Cluster;
use crate::http::Http;
use crate::load::{Load, make_users};
use crate::settle::{answers, books_balance, counted, drained, letters, settle, shown};
use crate::stores;

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/small-trace.csv");

#[test]
fn records_that_cannot_be_read_are_set_aside_and_listed_and_counting_goes_on() {
    let cluster = Cluster::beside_others();
    let serving = cluster.serve();
    let load = Load::start(&serving);
    load.goes_on(200);
    let poison: [&[u8]; 5] = [
        b"",
        b"{\"not\": \"Protobuf\"}",
        // Only a version: one that is not known yet, then one that lacks everything else.
        &[8, 9],
        &[8, 1],
        // A length that goes past the end.
        &[8, 1, 18, 16, 1, 2, 3],
    ];
    let everywhere = (0..4).flat_map(|partition| poison.map(|value| (partition, value.to_vec())));
    let records: Vec<_> = everywhere.collect();
    stores::kafka_append(&cluster.kafka_brokers, &cluster.topic, &records);
    load.goes_on(200);
    settle(&cluster, &serving, load);
    let aside = letters(&cluster, "undecodable");
    assert_eq!(aside.len(), records.len(), "{aside:?}");
    let unknown = aside.iter().filter(|one| one["detail"].to_string().contains("version 9"));
    assert_eq!(unknown.count(), 4, "{aside:?}");
    let tallied = "SELECT sum(dead_letters)::bigint FROM cursors";
    let tallied = stores::postgres_numbers(&cluster.postgres_url, tallied);
    assert_eq!(tallied, [[i64::try_from(records.len()).unwrap()]]);
}

/// Users made in the database: over HTTP so many would take a minute.
fn many_users(cluster: &Cluster, count: usize) -> Vec<String> {
    let id = "('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))";
    let from = format!("FROM generate_series(0, {}) AS n", count - 1);
    let sql = format!(
        "INSERT INTO users (id, external_id) SELECT {id}::uuid, 'many-' || n {from};
         INSERT INTO subscriptions (id, user_id, plan, status, auto_renew)
         SELECT 'sub_' || {id}, {id}::uuid, 'professional', 'active', true {from}"
    );
    stores::postgres_run(&cluster.postgres_url, &sql);
    (0..count).map(|number| format!("01900000-0000-7000-8000-{number:012x}")).collect()
}

/// A batch of one event of each user, with so many bytes of metadata.
fn batch(users: &[String], id: &str, metadata_bytes: usize) -> Value {
    let note = "x".repeat(metadata_bytes - r#"{"note":""}"#.len());
    let event = |user: &String| {
        json!({
            "user_id": user, "event_id": id, "request_type": "plagiarism", "model": "gpt-4",
            "prompt_tokens": 3, "completion_tokens": 4, "metadata": {"note": note},
        })
    };
    users.iter().map(event).collect()
}

/// Those that a batch's answer calls accepted, and those that an earlier try has brought.
fn taken(answer: &Value) -> u64 {
    ["accepted", "duplicates"].map(|name| answer[name].as_u64().unwrap()).iter().sum()
}

/// Sends it until it is answered, and expects every event to be taken.
fn all_taken(ingest: &Http, batch: &Value) {
    let size = batch.to_string().len();
    assert!((7 << 20..8 << 20).contains(&size), "{size} bytes");
    let events = u64::try_from(batch.as_array().unwrap().len()).unwrap();
    assert_eq!(taken(&expect(ingest, "/api/tokens/track/batch", batch, 200)), events);
}

#[test]
fn batches_as_large_as_they_may_be_are_counted_whole() {
    let cluster = Cluster::beside_others();
    let users = many_users(&cluster, 10_000);
    let serving = cluster.serve();
    // All events that a batch may have, each of another user; and all metadata that an event may have.
    all_taken(&serving.ingests[0].http, &batch(&users, "one-of-many", 600));
    all_taken(&serving.ingests[1].http, &batch(&users[..1_800], "one-of-large", 4096));
    drained(&cluster);
    let counted = counted(&cluster);
    assert_eq!(counted.len(), users.len());
    assert_eq!(counted.values().map(|events| events.len()).sum::<usize>(), 11_800);
    let history = serving.api.http.get(&format!("/api/users/{}/tokens/history", users[0]));
    let history = history.expect(200);
    let note = |place: usize| history["data"][place]["metadata"]["note"].as_str().unwrap().len();
    assert_eq!([note(0), note(1)].map(|length| length + 11), [4096, 600]);
    books_balance(&cluster);
}

#[test]
fn events_on_both_sides_of_a_month_count_in_their_own() {
    let cluster = Cluster::beside_others();
    let serving = cluster.serve();
    let users = make_users(&serving.api.http, 1, 1);
    let id = &users[0].id;
    let this = serving.api.http.get(&format!("/api/users/{id}/tokens")).expect(200);
    let start = this["current_period"]["start_date"].as_str().unwrap().to_owned();
    let (year, month): (u32, u32) = (start[..4].parse().unwrap(), start[5..7].parse().unwrap());
    let (year, month) = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
    let before = format!("{year:04}-{month:02}");
    let days = ["28", "29", "30", "31"].into_iter();
    let event = |number: usize, at: &str| {
        json!({
            "user_id": id, "event_id": format!("{at}-{number}"), "request_type": "chat",
            "model": "gpt-3.5-turbo", "prompt_tokens": number, "completion_tokens": 0,
            "occurred_at": at,
        })
    };
    // The last instant of a month has as many names as there are lengths of months: the last good one.
    let last = days.map(|day| format!("{before}-{day}T23:59:59.999Z")).rfind(|at| {
        let (tried, _) = ask(
            &serving.ingests[0].http,
            "/api/tokens/track",
            &json!({"user_id": id, "event_id": at, "request_type": "prompt_generation",
                    "model": "gpt-3.5-turbo", "prompt_tokens": 0, "completion_tokens": 0,
                    "occurred_at": at}),
        );
        [200, 201].contains(&tried.status)
    });
    let last = last.unwrap();
    // 120 of each month are asked for where 100 may be had: of each, and not of both together.
    let both = (0..120).flat_map(|number| [event(number, &last), event(number, &start)]);
    let both: Value = both.collect();
    let told = expect(&serving.ingests[1].http, "/api/tokens/track/batch", &both, 200);
    assert_eq!((taken(&told), told["rejected"].as_u64()), (200, Some(40)), "{told}");
    drained(&cluster);
    let sum: u64 = (0..100).sum();
    for month in [&before, &start[..7]] {
        let path = format!("/api/users/{id}/tokens?period={month}");
        let shown = serving.api.http.get(&path).expect(200);
        assert_eq!(shown["current_period"]["tokens_used"], sum, "{month} {shown}");
        let days = shown["daily_usage"].as_array().unwrap();
        let day = if *month == before { &last[..10] } else { &start[..10] };
        assert!(days.iter().any(|one| one["date"] == day && one["total_tokens"] == sum), "{shown}");
    }
    answers(&serving, &users);
    drained(&cluster);
    shown(&serving, &users, &counted(&cluster));
    books_balance(&cluster);
}

/// Rows, prompt and completion tokens of the trace, read without the program.
fn sums() -> [u64; 3] {
    let content = std::fs::read_to_string(TRACE).unwrap();
    let rows = content.lines().skip(1).map(|line| {
        let mut fields = line.trim_end().split(',').skip(1).map(|field| field.parse::<u64>());
        [1, fields.next().unwrap().unwrap(), fields.next().unwrap().unwrap()]
    });
    rows.fold([0; 3], |sums, row| [0, 1, 2].map(|place: usize| sums[place] + row[place]))
}

#[test]
fn a_replayed_trace_has_exact_sums_and_again_adds_duplicates_to_the_books_alone() {
    let cluster = Cluster::beside_others();
    let node = cluster.start("node", "ingest,aggregator,api");
    node.is_ready();
    let key = cluster.file("key", &cluster.key);
    let rows = sums()[0];
    let replay = |batch: &str| {
        let (url, key) = (node.http.url.as_str(), key.to_str().unwrap());
        let arguments = [
            "replay",
            TRACE,
            "--users",
            "7",
            "--batch",
            batch,
            "--url",
            url,
            "--api-key-file",
            key,
        ];
        let replayed = cluster.json(&arguments);
        drained(&cluster);
        assert_eq!((taken(&replayed), replayed["rejected"].as_u64()), (rows, Some(0)));
        replayed["retries"].as_u64().unwrap()
    };
    let totals = || {
        let usage = node.http.get("/api/tokens/admin/usage").expect(200);
        ["events", "prompt_tokens", "completion_tokens"]
            .map(|name| usage["totals"][name].as_u64().unwrap())
    };
    let tallies = || {
        let tallies = "SELECT sum(counted)::bigint, sum(duplicates)::bigint, \
                       sum(dead_letters)::bigint, sum(void)::bigint FROM cursors";
        stores::postgres_numbers(&cluster.postgres_url, tallies).remove(0)
    };
    let counted = i64::try_from(rows).unwrap();
    for (times, batch) in [(0, "50"), (1, "1")] {
        let retries = replay(batch);
        assert_eq!(totals(), sums());
        let tallies = tallies();
        assert_eq!((tallies[0], tallies[2]), (counted, 0), "{tallies:?}");
        // What is sent again, because an answer was late, is one more duplicate, or void.
        let exact = tallies[1..] == [times * counted, 0, 0];
        assert!(exact || retries > 0 && tallies[1] >= times * counted, "{tallies:?}");
    }
    books_balance(&cluster);
}
