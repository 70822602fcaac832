//! Any two at the same moment, processes and servers alike.

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::cluster::{Cluster, Process, Serving};
use crate::load::Load;
use crate::servers::Servers;
use crate::settle::settle;

/// How often two die.
const ROUNDS: usize = 5;

/// Set to the seed that an earlier run told, this one kills the same.
const SEED: &str = "TOKENMETER_TEST_SEED";

#[derive(Clone, Copy, Debug)]
enum Victim {
    Server(&'static str),
    Ingest(usize),
    Aggregator(usize),
    Api,
}

const VICTIMS: [Victim; 11] = [
    Victim::Server("kafka-1"),
    Victim::Server("kafka-2"),
    Victim::Server("kafka-3"),
    Victim::Server("redis"),
    Victim::Server("postgres"),
    Victim::Server("clickhouse"),
    Victim::Ingest(0),
    Victim::Ingest(1),
    Victim::Aggregator(0),
    Victim::Aggregator(1),
    Victim::Api,
];

impl Victim {
    fn kill(self, cluster: &Cluster, serving: &mut Serving) {
        match self {
            Self::Server(name) => cluster.servers.down(&[name, "--kill"]),
            Self::Ingest(place) => serving.ingests[place].kill(),
            Self::Aggregator(place) => serving.aggregators[place].kill(),
            Self::Api => serving.api.kill(),
        }
    }

    fn is_server(self) -> bool {
        matches!(self, Self::Server(_))
    }

    fn revive(self, cluster: &Cluster, mut serving: Serving) -> Serving {
        let restart = |processes: &mut Vec<Process>, place| {
            let process = processes.remove(place);
            processes.insert(place, cluster.restart(process, ""));
        };
        match self {
            Self::Server(name) => cluster.servers.up(&[name]),
            Self::Ingest(place) => restart(&mut serving.ingests, place),
            Self::Aggregator(place) => restart(&mut serving.aggregators, place),
            Self::Api => serving.api = cluster.restart(serving.api, ""),
        }
        serving
    }
}

#[allow(clippy::disallowed_methods, reason = "it is a setting of this test alone")]
fn seed() -> u64 {
    std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap())
}

#[test]
fn whichever_two_die_together_no_event_is_lost_or_counted_twice() {
    let seed = seed();
    println!("to kill the same once more: {SEED}={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::on(Servers::start(&["--brokers", "3"]), None);
    let mut serving = cluster.serve();
    let load = Load::start(&serving);
    load.goes_on(200);
    for _ in 0..ROUNDS {
        let mut victims = VICTIMS;
        let (dying, _) = victims.partial_shuffle(&mut random, 2);
        println!("kill {dying:?}");
        dying.iter().for_each(|victim| victim.kill(&cluster, &mut serving));
        // A process that starts asks for its servers.
        dying.sort_by_key(|victim| !victim.is_server());
        for victim in dying {
            serving = victim.revive(&cluster, serving);
        }
        // Not always until they have found each other again.
        load.goes_on(random.random_range(1..200));
    }
    settle(&cluster, &serving, load);
}
