//! ClickHouse and Postgres that are killed at the worst moment, and away for long.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Serving};
use crate::load::Load;
use crate::settle::{answers, settle};
use crate::stores;
use crate::waiting::{eventually, within};

/// How long a database is away: longer than any deadline, pause or memory of who may do what.
const AWAY: Duration = Duration::from_secs(60);

/// Within which a client hears that 20 more events are recorded.
const PROMPT: Duration = Duration::from_secs(5);

#[test]
fn databases_that_die_or_are_away_lose_nothing_and_hold_up_nobody_who_is_known() {
    let cluster = Cluster::alone();
    let mut serving = cluster.serve();

    // A refusal waits for ClickHouse, which is asked whether the event is known.
    let load = Load::unlimited(&serving);
    clickhouse_in_an_insert(&cluster, &load);
    settle(&cluster, &serving, load);

    let load = Load::start(&serving);
    postgres_before_commit(&cluster, &mut serving, &load);
    postgres_in_a_commit(&cluster, &load);
    postgres_after_commit(&cluster, &mut serving, &load);
    settle(&cluster, &serving, load);

    for server in ["clickhouse", "postgres"] {
        let load = Load::unlimited(&serving);
        // Every ingest knows every user.
        answers(&serving, load.users());
        cluster.servers.down(&[server, "--kill"]);
        nobody_waits(&load);
        // Whoever starts while it is away begins when it is back.
        let late = cluster.begin("late", "ingest", "");
        eventually("it waits", || late.log().contains("waits for the databases").then_some(()));
        cluster.servers.up(&[server]);
        late.listens().is_ready();
        load.goes_on(50);
        settle(&cluster, &serving, load);
    }
}

/// Clients go on as if nothing had happened.
#[track_caller]
fn nobody_waits(load: &Load) {
    let (back, retries) = (Instant::now() + AWAY, load.retries());
    while Instant::now() < back {
        let wanted = load.acknowledged() + 20;
        within(PROMPT, "clients go on", || (load.acknowledged() >= wanted).then_some(()));
    }
    assert_eq!(load.retries(), retries, "something was answered with 503");
}

fn clickhouse_in_an_insert(cluster: &Cluster, load: &Load) {
    for _ in 0..5 {
        load.goes_on(60);
        // Statements pile up while it stands still; killed as it gets going, it is in the middle of some.
        cluster.servers.signal("clickhouse", "STOP");
        let commits = load.acknowledged() + 1;
        eventually("more is recorded", || (load.acknowledged() > commits).then_some(()));
        cluster.servers.signal("clickhouse", "CONT");
        cluster.servers.down(&["clickhouse", "--kill"]);
        cluster.servers.up(&["clickhouse"]);
    }
    load.goes_on(60);
}

/// The aggregator lives, and finds its transaction gone when it commits.
fn postgres_before_commit(cluster: &Cluster, serving: &mut Serving, load: &Load) {
    let victim = serving.aggregators.remove(0);
    let victim = cluster.restart(victim, "ledger::before_commit=4*off->1*sleep(3000)->off");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND state = 'idle in transaction' \
                   AND state_change < now() - interval '500 milliseconds'";
    eventually("a transaction waits for its COMMIT", || {
        (stores::postgres_numbers(&cluster.postgres_url, waiting) != [[0]]).then_some(())
    });
    kill_postgres(cluster);
    serving.aggregators.push(victim);
    load.goes_on(60);
}

/// What was committed stays, but nobody is told.
fn postgres_in_a_commit(cluster: &Cluster, load: &Load) {
    let (host, _) = cluster.postgres_url.rsplit_once('/').unwrap();
    let root = format!("{}/postgres", host.replace("tokenmeter@", "postgres@"));
    // Each commit is written, and then waits for a replica that there is not.
    stores::postgres_run(&root, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    stores::postgres_run(&root, "SELECT pg_reload_conf()");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually("a COMMIT waits", || {
        (stores::postgres_numbers(&root, waiting) != [[0]]).then_some(())
    });
    cluster.servers.down(&["postgres", "--kill"]);
    std::fs::write(cluster.servers.state.join("postgres/postgresql.auto.conf"), "").unwrap();
    cluster.servers.up(&["postgres"]);
    load.goes_on(60);
}

/// And neither the aggregator can tell.
fn postgres_after_commit(cluster: &Cluster, serving: &mut Serving, load: &Load) {
    let victim = serving.aggregators.remove(0);
    let victim = cluster.restart(victim, "ledger::after_commit=4*off->return");
    victim.stopped_at("ledger::after_commit");
    kill_postgres(cluster);
    serving.aggregators.push(cluster.restart(victim, ""));
    load.goes_on(60);
}

fn kill_postgres(cluster: &Cluster) {
    cluster.servers.down(&["postgres", "--kill"]);
    cluster.servers.up(&["postgres"]);
}
