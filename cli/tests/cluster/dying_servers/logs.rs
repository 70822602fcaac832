//! A topic that is not the one that was counted.

use std::process::{Output, Stdio};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig as _;
use serde_json::json;

use crate::cluster::{Cluster, PARTITIONS, Process, Serving};
use crate::load::{Load, make_users};
use crate::settle::{books_balance, settle};
use crate::stores;
use crate::waiting::eventually;

/// The option that tells one topic from another.
const MARK: &str = "delete.retention.ms";

#[test]
fn another_log_is_refused_until_it_is_said_to_be_the_new_one() {
    let mut cluster = Cluster::beside_others();
    let serving = cluster.serve();
    let load = Load::start(&serving);
    load.goes_on(300);
    settle(&cluster, &serving, load);

    let serving = left_for_another(&mut cluster, serving);
    let serving = made_anew(&cluster, serving);
    let serving = cut_short(&mut cluster, serving);

    // Of four logs, each with events of its own.
    let generations = "SELECT count(*) FROM log_generations";
    assert_eq!(stores::postgres_numbers(&cluster.postgres_url, generations), [[4]]);
    books_balance(&cluster);
    drop(serving);
}

/// The topic is left for another while it is whole: not before everything in it is counted, and
/// nobody adds to it any more.
fn left_for_another(cluster: &mut Cluster, mut serving: Serving) -> Serving {
    let another = format!("{}.left", cluster.topic);
    let leave = ["migrate", "--new-log", "--kafka-topic", &another];
    let complaint = refused(cluster, &leave);
    assert!(complaint.contains("an aggregator counts the topic"), "{complaint}");
    let load = Load::start(&serving);
    load.goes_on(300);
    stop(&mut serving.aggregators);
    load.goes_on(20);
    let complaint = refused(cluster, &leave);
    assert!(complaint.contains("holds events that are not counted"), "{complaint}");
    is_not_left(cluster);
    // As a `migrate --new-log` leaves it that is killed while it waits.
    stores::postgres_run(&cluster.postgres_url, "UPDATE log_generations SET is_left = true");
    cluster.json(&["migrate"]);
    is_not_left(cluster);
    start_aggregators(cluster, &mut serving);
    load.goes_on(20);
    settle(cluster, &serving, load);
    stop(&mut serving.aggregators);
    cluster.change("ON_COUNTER_OUTAGE", "record");
    serving.ingests.push(cluster.start("ingest-3", "ingest"));
    cluster.change("ON_COUNTER_OUTAGE", "refuse");
    cluster.json(&leave);
    let first = std::mem::replace(&mut cluster.topic, another);
    let serving = goes_on(cluster, serving, None);
    let complaint = refused(cluster, &["migrate", "--new-log", "--kafka-topic", &first]);
    assert!(complaint.contains("is counted already, as generation 0"), "{complaint}");
    serving
}

/// Whoever records without the counter may do so.
#[track_caller]
fn is_not_left(cluster: &Cluster) {
    let open = "SELECT count(*) FROM log_generations WHERE NOT is_left";
    assert_eq!(stores::postgres_numbers(&cluster.postgres_url, open), [[1]]);
}

/// The topic is deleted and made anew while nobody counts.
fn made_anew(cluster: &Cluster, mut serving: Serving) -> Serving {
    stop(&mut serving.aggregators);
    Topic::of(cluster).make_anew();
    // What an ingest takes that has not noticed is counted in the end.
    let unaware = Load::start(&serving);
    for arguments in [&["--role", "aggregator"][..], &["--role", "ingest"], &["migrate"]] {
        let complaint = refused(cluster, arguments);
        assert!(complaint.contains("is not the event log that was counted so far"), "{complaint}");
        assert!(complaint.contains("migrate --new-log"), "{complaint}");
    }
    cluster.json(&["migrate", "--new-log", "--kafka-topic", &cluster.topic]);
    goes_on(cluster, serving, Some(unaware))
}

/// A topic of that identity ends before the place up to which it was counted: its records are gone, or
/// it is an older copy.
fn cut_short(cluster: &mut Cluster, mut serving: Serving) -> Serving {
    stop(&mut serving.aggregators);
    let mark = Topic::of(cluster).make_anew();
    let pass_for_the_old = format!(
        "UPDATE log_generations SET topic_id = regexp_replace(topic_id, '/.*', '/{mark:x}')
         WHERE number = (SELECT max(number) FROM log_generations)"
    );
    stores::postgres_run(&cluster.postgres_url, &pass_for_the_old);
    for arguments in [&["--role", "aggregator"][..], &["--role", "ingest"], &["migrate"]] {
        let complaint = refused(cluster, arguments);
        assert!(complaint.contains("but it is counted up to"), "{complaint}");
        assert!(complaint.contains("migrate --new-log"), "{complaint}");
    }
    let complaint = refused(cluster, &["migrate", "--new-log", "--kafka-topic", &cluster.topic]);
    assert!(complaint.contains("name another with --kafka-topic"), "{complaint}");
    let another = format!("{}.another", cluster.topic);
    cluster.json(&["migrate", "--new-log", "--kafka-topic", &another]);
    cluster.topic = another;
    goes_on(cluster, serving, None)
}

/// With the log that `migrate --new-log` has begun, all processes started anew.
fn goes_on(cluster: &Cluster, mut serving: Serving, load: Option<Load>) -> Serving {
    start_aggregators(cluster, &mut serving);
    // Whoever still writes to a log that is not counted any more takes nothing, with the counter or
    // without.
    let user = &make_users(&serving.api.http, 0, 1)[0].id;
    for ingest in &serving.ingests {
        let body = json!({
            "user_id": user, "request_type": "chat", "model": "gpt-3.5-turbo", "prompt_tokens": 1,
            "completion_tokens": 0,
        });
        ingest.http.post("/api/tokens/track", &body).expect(503);
    }
    let ingests = serving.ingests.drain(..).collect::<Vec<_>>();
    serving.ingests = ingests.into_iter().map(|ingest| cluster.restart(ingest, "")).collect();
    serving.api = cluster.restart(serving.api, "");
    let load = load.unwrap_or_else(|| Load::start(&serving));
    load.goes_on(300);
    settle(cluster, &serving, load);
    serving
}

fn start_aggregators(cluster: &Cluster, serving: &mut Serving) {
    for name in ["aggregator-1", "aggregator-2"] {
        let aggregator = cluster.start(name, "aggregator");
        aggregator.is_ready();
        serving.aggregators.push(aggregator);
    }
}

fn stop(processes: &mut Vec<Process>) {
    for process in processes.drain(..) {
        assert_eq!(process.terminate().code(), Some(0));
    }
}

/// What the program complains of, which ends by itself.
#[track_caller]
fn refused(cluster: &Cluster, arguments: &[&str]) -> String {
    let ports = [cluster.servers.port(), cluster.servers.port()];
    let [listen, ops] = ports.map(|port| format!("127.0.0.1:{port}"));
    let mut command = cluster.command(arguments);
    if arguments.contains(&"--role") {
        command.args(["--listen", &listen, "--ops-listen", &ops]);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it refuses", || child.try_wait().unwrap());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let said = [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert_eq!(status.code(), Some(1), "{arguments:?}: {said}");
    said
}

/// The log, as an operator of Kafka sees it.
struct Topic {
    admin: AdminClient<DefaultClientContext>,
    name: String,
}

impl Topic {
    fn of(cluster: &Cluster) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &cluster.kafka_brokers);
        let admin = AdminClient::from_config(&config).unwrap();
        Self { admin, name: cluster.topic.clone() }
    }

    /// What `migrate` has set.
    fn options(&self) -> Vec<(String, String)> {
        let asked = [ResourceSpecifier::Topic(&self.name)];
        let described = wait(self.admin.describe_configs(&asked, &AdminOptions::new())).unwrap();
        let entries = described.into_iter().next().unwrap().unwrap().entries.into_iter();
        let set = entries.filter(|entry| !entry.is_default);
        set.filter_map(|entry| Some((entry.name, entry.value?))).collect()
    }

    /// Deletes it, and makes one of the same name and options. Answers the new one's mark.
    fn make_anew(&self) -> u64 {
        let options = self.options();
        let mark = options.iter().find(|(name, _)| name == MARK).unwrap();
        let mark = mark.1.parse::<u64>().unwrap() + 1;
        let text = mark.to_string();
        let timeout = AdminOptions::new();
        let deleted = wait(self.admin.delete_topics(&[&self.name], &timeout)).unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        eventually("the topic is made anew", || {
            let mut topic = NewTopic::new(&self.name, PARTITIONS, TopicReplication::Fixed(1));
            for (name, value) in &options {
                topic = topic.set(name, if name == MARK { &text } else { value });
            }
            let made = wait(self.admin.create_topics([&topic], &timeout)).unwrap();
            made[0].is_ok().then_some(())
        });
        mark
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}
