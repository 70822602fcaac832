//! Aggregators that are killed, stopped and crowded out: whoever takes over counts the same.

use crate::cluster::Cluster;
use crate::load::Load;
use crate::settle::{drained, limits_were_reached, settle};
use crate::waiting::eventually;

/// Every step of a commit, and what follows it.
const STEPS: [&str; 7] = [
    "ledger::begin",
    "ledger::raw",
    "ledger::slim",
    "ledger::summary",
    "ledger::before_commit",
    "ledger::after_commit",
    "counter::sync",
];

#[test]
fn an_aggregator_killed_at_any_step_of_a_commit_leaves_nothing_out_and_counts_nothing_twice() {
    let cluster = Cluster::beside_others();
    let mut serving = cluster.serve();
    let load = Load::start(&serving);
    load.goes_on(300);
    for (place, step) in STEPS.into_iter().enumerate() {
        let victim = serving.aggregators.remove(0);
        // The first time, or in the middle of its work.
        let times = place % 3 * 3;
        let mut victim = cluster.restart(victim, &format!("{step}={times}*off->return"));
        victim.stopped_at(step);
        victim.kill();
        if place % 2 == 0 {
            // The other one takes its partitions over.
            load.goes_on(50);
            drained(&cluster);
        }
        serving.aggregators.push(cluster.restart(victim, ""));
        load.goes_on(50);
    }
    assert!(limits_were_reached(&settle(&cluster, &serving, load)));
}

#[test]
fn an_aggregator_stopped_past_its_session_changes_nothing_when_it_goes_on() {
    let cluster = Cluster::beside_others();
    let mut serving = cluster.serve();
    let load = Load::start(&serving);
    load.goes_on(300);
    for place in [0, 1, 0] {
        let zombie = &serving.aggregators[place];
        zombie.signal("STOP");
        load.goes_on(100);
        // Its partitions too: another has taken them over.
        drained(&cluster);
        zombie.signal("CONT");
        load.goes_on(100);
    }
    // And within its transaction, with the cursors' rows locked.
    let zombie = serving.aggregators.remove(0);
    let zombie = cluster.restart(zombie, "ledger::before_commit=5*off->return");
    zombie.stopped_at("ledger::before_commit");
    zombie.signal("STOP");
    load.goes_on(100);
    drained(&cluster);
    zombie.signal("CONT");
    load.goes_on(100);
    serving.aggregators.push(cluster.restart(zombie, ""));
    assert!(limits_were_reached(&settle(&cluster, &serving, load)));
}

#[test]
fn aggregators_that_join_and_leave_all_the_time_count_everything_once() {
    let cluster = Cluster::beside_others();
    let serving = cluster.serve();
    let load = Load::start(&serving);
    load.goes_on(200);
    for round in 0..8 {
        let guest = cluster.start(&format!("guest-{round}"), "aggregator");
        eventually("the guest counts a partition", || {
            guest.log().contains("counting begins").then_some(())
        });
        load.goes_on(30);
        // With a good-bye, or by its session's end.
        if round % 2 == 0 {
            assert_eq!(guest.terminate().code(), Some(0));
        }
    }
    assert!(limits_were_reached(&settle(&cluster, &serving, load)));
}
