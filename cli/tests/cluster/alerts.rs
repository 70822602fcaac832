//! Alerts of a cluster: every aggregator sends from one outbox.

use std::collections::{BTreeSet, HashMap};

use crate::cluster::Cluster;
use crate::load::Load;
use crate::receiver::Receiver;
use crate::settle::{limits_were_reached, settle};
use crate::waiting::eventually;

#[test]
fn alerts_are_told_while_aggregators_die() {
    let mut cluster = Cluster::beside_others();
    let receiver = Receiver::start();
    let secret = cluster.file("secret", &Receiver::secret());
    cluster.add("ALERT_WEBHOOK", &receiver.url());
    cluster.add("ALERT_WEBHOOK_SECRET_FILE", secret.to_str().unwrap());
    let mut serving = cluster.serve();
    let load = Load::crowded(&serving);
    load.goes_on(100);
    for step in ["ledger::before_commit", "ledger::after_commit"] {
        let victim = serving.aggregators.remove(0);
        let mut victim = cluster.restart(victim, &format!("{step}=2*off->return"));
        victim.stopped_at(step);
        victim.kill();
        load.goes_on(50);
        serving.aggregators.push(cluster.restart(victim, ""));
        load.goes_on(50);
    }
    assert!(limits_were_reached(&settle(&cluster, &serving, load)));
    let all = eventually("all are sent", || {
        let listed = cluster.json(&["alerts", "list", "--limit", "100000"]);
        let alerts = listed["alerts"].as_array().unwrap();
        let ids = alerts.iter().map(|alert| alert["id"].as_str().unwrap().to_owned());
        let sent = alerts.iter().all(|alert| alert["delivery"]["state"] == "sent");
        sent.then(|| ids.collect::<BTreeSet<_>>())
    });
    let mut heard = HashMap::new();
    for message in receiver.heard() {
        let before = heard.entry(message.id).or_insert_with(|| message.body.clone());
        assert_eq!(*before, message.body);
    }
    assert_eq!(heard.into_keys().collect::<BTreeSet<_>>(), all);
}
