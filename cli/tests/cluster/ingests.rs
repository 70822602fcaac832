//! Ingests that are killed, each at another point of a request; and two that get the same event.

use std::sync::Barrier;

use serde_json::{Value, json};

use crate::asking::ask;
use crate::cluster::{Cluster, Process, Serving};
use crate::load::{Load, make_users};
use crate::settle::{
    answers, books_balance, counted, drained, letters, limits_were_reached, settle, shown,
};
use crate::stores;
use crate::waiting::eventually;

#[test]
fn an_ingest_killed_anywhere_in_a_request_loses_and_repeats_nothing() {
    let cluster = Cluster::beside_others();
    let mut serving = cluster.serve();
    let load = Load::start(&serving);
    load.goes_on(500);
    for point in ["counter::admit", "counter::admitted", "log::handed_over", "log::confirmed"] {
        let victim = serving.ingests.remove(0);
        let victim = cluster.restart(victim, &format!("{point}=20*off->return"));
        victim.stopped_at(point);
        // Killed there, and started again at once on the same port.
        serving.ingests.push(cluster.restart(victim, ""));
        load.goes_on(300);
    }
    let outcome = settle(&cluster, &serving, load);
    assert!(outcome.retries > 0 && limits_were_reached(&outcome));
}

#[test]
fn what_an_ingest_publishes_too_late_is_void_and_sent_again() {
    let cluster = Cluster::beside_others();
    let mut serving = cluster.serve();
    let load = Load::start(&serving);
    load.goes_on(800);
    // Longer than the admission window, between admission and log, as a process that was paused.
    let victim = serving.ingests.remove(0);
    let late = cluster.restart(victim, "counter::admitted=20*off->3*sleep(11000)->off");
    serving.ingests.push(late);
    let void = "SELECT sum(void)::bigint FROM cursors";
    eventually("something was too late", || {
        (stores::postgres_numbers(&cluster.postgres_url, void)[0][0] > 0).then_some(())
    });
    load.goes_on(900);
    let outcome = settle(&cluster, &serving, load);
    assert!(outcome.retries > 0 && limits_were_reached(&outcome));
}

#[test]
fn all_processes_killed_at_once_and_started_again_go_on_where_they_were() {
    let cluster = Cluster::beside_others();
    let mut serving = cluster.serve();
    let load = Load::start(&serving);
    for _ in 0..2 {
        load.goes_on(800);
        let all = [&mut serving.api].into_iter();
        let all = all.chain(&mut serving.ingests).chain(&mut serving.aggregators);
        all.for_each(Process::kill);
        serving.api = cluster.restart(serving.api, "");
        let restarted = |process| cluster.restart(process, "");
        serving.ingests = serving.ingests.into_iter().map(restarted).collect();
        serving.aggregators = serving.aggregators.into_iter().map(restarted).collect();
    }
    let outcome = settle(&cluster, &serving, load);
    assert!(outcome.retries > 0 && limits_were_reached(&outcome));
}

fn event(user: &str, id: &str, tokens: u64) -> Value {
    json!({
        "user_id": user, "event_id": id, "request_type": "chat", "model": "gpt-3.5-turbo",
        "prompt_tokens": tokens, "completion_tokens": 0,
    })
}

const TRACK: &str = "/api/tokens/track";

/// The statuses of both ingests, asked at the same moment; and whether one of them had to be asked again.
fn at_once(serving: &Serving, bodies: [&Value; 2]) -> ([u16; 2], bool) {
    let begin = Barrier::new(2);
    let ask_one = |ingest: &Process, body: &Value| {
        begin.wait();
        let (answer, again) = ask(&ingest.http, TRACK, body);
        (answer.status, again)
    };
    let [first, second] = std::thread::scope(|scope| {
        let second = scope.spawn(|| ask_one(&serving.ingests[1], bodies[1]));
        let first = ask_one(&serving.ingests[0], bodies[0]);
        [first, second.join().unwrap()]
    });
    ([first.0, second.0], first.1 || second.1)
}

#[test]
fn of_two_ingests_with_the_same_id_at_once_one_takes_it() {
    let cluster = Cluster::beside_others();
    let serving = cluster.serve();
    let users = make_users(&serving.api.http, 1, 2);
    let [limited, unlimited, other] = [0, 1, 2].map(|place: usize| users[place].id.as_str());
    for number in 0..60 {
        let same = event(unlimited, &format!("same-{number}"), 7);
        let (mut told, again) = at_once(&serving, [&same, &same]);
        told.sort_unstable();
        // Once the first is counted the door need not know it any more, and says 201 again. What was
        // asked again may have been taken the first time.
        let good = [[200, 201], [201, 201]].contains(&told) || again && told == [200, 200];
        assert!(good, "{told:?}");
    }
    // 15 of 1 000 tokens are asked for at once where there is room for 10.
    ask(&serving.ingests[0].http, TRACK, &event(limited, "most", 90_000));
    let mut granted = 0;
    for number in 0..15 {
        let same = event(limited, &format!("last-{number}"), 1000);
        let (told, _) = at_once(&serving, [&same, &same]);
        assert!(told == [429, 429] || !told.contains(&429), "{told:?}");
        granted += u64::from(!told.contains(&429));
    }
    assert_eq!(granted, 10);
    // The same id for two things: one of them, and the other is told or set aside.
    let mut refused = 0;
    for number in 0..20 {
        let id = format!("reused-{number}");
        let (told, again) = at_once(&serving, [&event(other, &id, 5), &event(other, &id, 6)]);
        assert!(told.contains(&201) || again && told.contains(&200), "{told:?}");
        refused += told.iter().filter(|status| **status == 409).count();
    }
    drained(&cluster);
    // And when the first is counted long since.
    for number in 0..20 {
        let reused = event(other, &format!("reused-{number}"), 8);
        let (told, again) = ask(&serving.ingests[0].http, TRACK, &reused);
        assert!([201, 409].contains(&told.status) || again, "{}", told.text);
        refused += usize::from(told.status == 409);
    }
    answers(&serving, &users);
    drained(&cluster);
    let aside = letters(&cluster, "event_id_reused").len();
    // What was sent twice may be set aside twice.
    assert!(refused + aside >= 40, "{refused} refused, {aside} set aside");
    let counted = counted(&cluster);
    let of = |user: &str, prefix: &str| {
        let events = counted[user].values().filter(|event| event.id.starts_with(prefix));
        events.map(|event| event.tokens).collect::<Vec<_>>()
    };
    assert_eq!(of(unlimited, "same-"), [7; 60]);
    assert_eq!(of(limited, "last-"), [1000; 10]);
    assert_eq!(of(other, "reused-").len(), 20);
    shown(&serving, &users, &counted);
    books_balance(&cluster);
}
