//! Ingests that are killed, each at another point of a request.

use crate::cluster::Cluster;
use crate::load::Load;
use crate::settle::settle;

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
    assert!(outcome.retries > 0);
}
