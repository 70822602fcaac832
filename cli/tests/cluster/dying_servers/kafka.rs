//! Brokers that are killed.

use crate::cluster::Cluster;
use crate::load::Load;
use crate::servers::Servers;
use crate::settle::settle;
use crate::waiting::eventually;

#[test]
fn the_only_broker_killed_is_waited_for() {
    let cluster = Cluster::alone();
    let serving = cluster.serve();
    let load = Load::start(&serving);
    load.goes_on(200);
    cluster.servers.down(&["kafka", "--kill"]);
    cluster.servers.up(&["kafka"]);
    load.goes_on(200);
    let outcome = settle(&cluster, &serving, load);
    assert!(outcome.retries > 0);
}

#[test]
fn one_broker_of_three_killed_is_not_missed_for_long() {
    let servers = Servers::start(&["--brokers", "3"]);
    let cluster = Cluster::on(servers, None);
    let serving = cluster.serve();
    let load = Load::start(&serving);
    load.goes_on(200);
    cluster.servers.down(&["kafka-1", "--kill"]);
    // The other two are enough, also for who starts before they have taken its place.
    let started = cluster.start("ingest-3", "ingest");
    load.goes_on(300);
    drop(started);
    cluster.servers.up(&["kafka-1"]);
    load.goes_on(200);
    settle(&cluster, &serving, load);
}

#[test]
fn whoever_waits_for_a_server_to_start_ends_when_told_to() {
    for (setting, nobody, what) in [
        ("KAFKA_BROKERS", "127.0.0.1:1", "waits for the event log"),
        ("CLICKHOUSE_URL", "http://127.0.0.1:1", "waits for the databases: ClickHouse"),
        ("POSTGRES_URL", "postgres://127.0.0.1:1/x", "waits for the databases: Postgres"),
    ] {
        let mut cluster = Cluster::beside_others();
        cluster.change(setting, nobody);
        let ingest = cluster.begin("ingest", "ingest", "");
        eventually(what, || ingest.log().contains(what).then_some(()));
        assert_eq!(ingest.terminate().code(), Some(0));
    }
}
