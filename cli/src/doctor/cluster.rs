//! Each server of the cluster: whether it answers, its version, its schema, its clock.

use std::time::Duration;

use metering::time::Timestamp;
use stores::cluster_status::{self, ServerStatus};
use stores::kafka::{KafkaAdmin, LogStatus};
use stores::{clickhouse, postgres};

use super::Check;
use crate::backend::Cluster;
use crate::context::Context;
use crate::settings::ClusterSettings;

/// All checks; each says by itself what does not answer.
pub(super) async fn checks(context: &Context, settings: &ClusterSettings) -> Vec<Check> {
    let (postgres, clickhouse) = match Cluster::databases(settings) {
        Ok(databases) => databases,
        Err(error) => return vec![Check::new("settings", Err(format!("{error:#}")))],
    };
    let bound = settings.clock_bound;
    let mut checks = vec![
        server(context, "Postgres", bound, cluster_status::postgres(&postgres).await),
        schema("Postgres schema", postgres::check(&postgres).await),
        server(context, "ClickHouse", bound, cluster_status::clickhouse(&clickhouse).await),
        schema("ClickHouse schema", clickhouse::check(&clickhouse).await),
        server(context, "Redis", bound, cluster_status::redis(&settings.redis_url).await),
        Check::new("Kafka", kafka(settings).await),
    ];
    let log = async { Cluster::connect(settings).await?.check_topic().await };
    let log = log.await.map(|()| "the topic is the one that is counted".to_owned());
    checks.push(Check::new("event log", log.map_err(|error| format!("{error:#}"))));
    checks
}

fn schema<E: std::error::Error + Send + Sync + 'static>(
    name: &str,
    checked: Result<(), E>,
) -> Check {
    let found = checked.map(|()| "up to date".to_owned());
    Check::new(name, found.map_err(|error| format!("{:#}", anyhow::Error::new(error))))
}

/// Limits rest on clocks that agree: a server whose clock lies further off than `--clock-bound` is a
/// fault.
fn server(
    context: &Context,
    name: &str,
    bound: Duration,
    status: Result<ServerStatus, metering::Unavailable>,
) -> Check {
    let ours = context.clock.now();
    let found = match status {
        Err(error) => Err(error.to_string()),
        Ok(ServerStatus { version, now, warnings }) => {
            let off = apart(ours, now);
            let mut detail = format!("version {version}, clock {} ms off", off.as_millis());
            for warning in &warnings {
                detail.push_str("; ");
                detail.push_str(warning);
            }
            if off > bound {
                Err(format!("{detail}: more than --clock-bound allows"))
            } else if warnings.is_empty() {
                Ok(detail)
            } else {
                Err(detail)
            }
        }
    };
    Check::new(name, found)
}

fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

async fn kafka(settings: &ClusterSettings) -> Result<String, String> {
    let admin = KafkaAdmin::new(&settings.kafka()).map_err(|error| error.to_string())?;
    let LogStatus { brokers, partitions, .. } =
        admin.describe().await.map_err(|error| error.to_string())?;
    let without_leader = partitions.iter().filter(|one| one.leader.is_none()).count();
    let lagging = partitions.iter().filter(|one| one.in_sync.len() < one.replicas.len()).count();
    let detail = format!("{} brokers, {} partitions", brokers.len(), partitions.len());
    if without_leader > 0 {
        return Err(format!("{detail}, {without_leader} of them without a leader"));
    }
    if lagging > 0 {
        return Err(format!("{detail}, {lagging} of them with copies that are not in sync"));
    }
    Ok(detail)
}
