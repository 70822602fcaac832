//! A Redis that is killed, forgets, remembers what is long past, or is replaced.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::asking::ask;
use crate::cluster::{Cluster, Process, Serving};
use crate::load::{Load, LoadUser, Outcome, Sent, TOKENS_OF_FREE, Told, make_users};
use crate::servers::Servers;
use crate::settle::{drained, settle};
use crate::stores;
use crate::waiting::eventually;

/// After these the limited users have most of what they may have.
const EVENTS: u64 = 400;

/// Between two things that happen: after two or three times as many they have all of it.
const MORE: u64 = 150;

#[test]
fn whatever_becomes_of_redis_no_limit_is_passed() {
    let servers = Servers::start(&["--replica"]);
    let mut cluster = Cluster::on(servers, None);
    let serving = cluster.serve();
    // Each has users of its own, most of them just short of their limits when it happens.
    for happens in [old_data, everything_flushed, nothing_kept] {
        let load = Load::crowded(&serving);
        load.goes_on(EVENTS);
        happens(&cluster, &load);
        load.goes_on(2 * MORE);
        some_refused(&settle(&cluster, &serving, load));
    }
    replaced(&mut cluster, serving);
}

#[test]
fn while_redis_is_away_events_can_be_recorded_and_limits_hold_again_afterwards() {
    let mut cluster = Cluster::on(Servers::start(&["--redis-persistence", "none"]), None);
    cluster.change("ON_COUNTER_OUTAGE", "record");
    let serving = cluster.serve();
    let users = make_users(&serving.api.http, 1, 0);
    let load = Load::unlimited_without_holds(&serving);
    load.goes_on(EVENTS);
    cluster.servers.down(&["redis", "--kill"]);
    let retries = load.retries();
    load.goes_on(MORE);
    let track = |name: &str, tokens: u64| {
        let event = Sent { user: 0, id: name.to_owned(), tokens, reservation: None };
        ask(&serving.ingests[0].http, "/api/tokens/track", &event.body(&users)).0
    };
    for name in ["most", "more"] {
        let answer = track(name, TOKENS_OF_FREE - 1).expect(201);
        assert_eq!(answer["flags"], json!(["unmetered"]));
    }
    assert_eq!(load.retries(), retries, "something was answered with 503");
    drained(&cluster);
    cluster.servers.up(&["--redis-persistence", "none", "redis"]);
    serving.is_ready();
    let mut tried = 0;
    eventually("the limit holds again", || {
        tried += 1;
        (track(&format!("one-{tried}"), 1).status == 429).then_some(())
    });
    load.goes_on(MORE);
    settle(&cluster, &serving, load);
    let unmetered = "SELECT count() AS n FROM token_usage FINAL WHERE bitTest(flags, 2) \
                     FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0";
    let unmetered = stores::clickhouse(&cluster.clickhouse_url, unmetered);
    assert!(unmetered[0]["n"].as_u64().unwrap() >= MORE, "{unmetered:?}");
    let metrics = serving.ingests[0].ops.get("/metrics").text;
    for name in [
        "tokenmeter_unmetered_events_total",
        "tokenmeter_store_errors_total{store=\"quota_counter\"}",
    ] {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        assert!(value.trim().parse::<f64>().unwrap() >= 2.0, "{name}{value}");
    }
}

/// It is killed, and comes back as it was some time ago.
fn old_data(cluster: &Cluster, load: &Load) {
    let servers = &cluster.servers;
    let [kept, old] = ["appendonlydir", "old"].map(|name| servers.state.join("redis").join(name));
    copy(&kept, &old);
    load.goes_on(MORE);
    servers.down(&["redis", "--kill"]);
    std::fs::remove_dir_all(&kept).unwrap();
    copy(&old, &kept);
    servers.up(&["redis"]);
    assert_ne!(say(cluster.setting("REDIS_URL"), "DBSIZE"), ":0");
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

fn everything_flushed(cluster: &Cluster, _: &Load) {
    assert_eq!(say(cluster.setting("REDIS_URL"), "FLUSHALL"), "+OK");
}

/// It is killed, and comes back empty: without persistence.
fn nothing_kept(cluster: &Cluster, _: &Load) {
    cluster.servers.down(&["redis", "--kill"]);
    cluster.servers.up(&["--redis-persistence", "none", "redis"]);
}

/// A replica takes its place, and the old one lives on: first for half of the processes, then for one.
fn replaced(cluster: &mut Cluster, mut serving: Serving) {
    let load = Load::crowded_one_by_one(&serving);
    load.goes_on(EVENTS);
    let database = cluster.setting("REDIS_URL").rsplit_once('/').unwrap().1;
    let promoted = format!("{}{database}", cluster.servers.address("LOCAL_REDIS_REPLICA_URL"));
    assert_ne!(say(&promoted, "DBSIZE"), ":0");
    assert_eq!(say(&promoted, "REPLICAOF NO ONE"), "+OK");
    cluster.change("REDIS_URL", &promoted);
    again(cluster, &mut serving.ingests);
    again(cluster, &mut serving.aggregators);
    // Each partition is with one of the two; a client finds the right one.
    load.goes_on(MORE);
    // All partitions go to the new one, and an ingest is left with the old one.
    again(cluster, &mut serving.aggregators);
    // Every user's: a partition that was not closed yet is still rightly with the old one.
    for user in load.users() {
        eventually("the new Redis answers", || {
            [200, 201, 429].contains(&track(&serving.ingests[1], user, "new")).then_some(())
        });
    }
    for round in 0..20 {
        for user in load.users() {
            let status = track(&serving.ingests[0], user, &format!("old-{round}"));
            assert_eq!(status, 503, "the deposed Redis admits {user:?}");
        }
    }
    load.goes_on(MORE);
    again(cluster, &mut serving.ingests);
    serving.api = cluster.restart(serving.api, "");
    some_refused(&settle(cluster, &serving, load));
}

/// Limits were reached, and what was answered with 503 was sent again.
#[track_caller]
fn some_refused(outcome: &Outcome) {
    assert!(outcome.retries > 0);
    assert!(outcome.told.values().any(|(_, told)| *told == Told::Refused), "nothing was refused");
}

/// Kills the first one, and starts it with the settings of now, as the last.
fn again(cluster: &Cluster, processes: &mut Vec<Process>) {
    let first = processes.remove(0);
    processes.push(cluster.restart(first, ""));
}

fn track(ingest: &Process, user: &LoadUser, id: &str) -> u16 {
    let body = json!({
        "user_id": user.id, "event_id": format!("afterwards-{id}"), "request_type": "chat",
        "model": "gpt-3.5-turbo", "prompt_tokens": 0, "completion_tokens": 0,
    });
    ingest.http.post("/api/tokens/track", &body).status
}

/// A command whose arguments need no quotes, in the URL's database; the first line of the reply.
#[track_caller]
fn say(url: &str, command: &str) -> String {
    let (address, database) = url.trim_start_matches("redis://").split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("SELECT {database}\r\n{command}\r\n").as_bytes()).unwrap();
    let mut replies = BufReader::new(stream).lines();
    assert_eq!(replies.next().unwrap().unwrap(), "+OK");
    replies.next().unwrap().unwrap()
}
