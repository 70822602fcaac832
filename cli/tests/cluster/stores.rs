//! What the tests read from the servers, and write to them, behind the program's back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs statements in Postgres.
pub(crate) fn postgres_run(url: &str, sql: &str) {
    on_postgres(async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
        connection.close().await
    });
}

/// Rows of numbers from Postgres.
pub(crate) fn postgres_numbers(url: &str, sql: &str) -> Vec<Vec<i64>> {
    on_postgres(async {
        let mut connection = PgConnection::connect(url).await?;
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
        let numbers = |row: &sqlx::postgres::PgRow| {
            (0..row.len()).map(|place| row.try_get_unchecked::<i64, _>(place)).collect()
        };
        let rows = rows.iter().map(numbers).collect();
        connection.close().await?;
        rows
    })
}

fn on_postgres<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work).unwrap()
}

/// Runs a statement in ClickHouse; rows come back when it ends with `FORMAT JSONEachRow`.
pub(crate) fn clickhouse(url: &str, sql: &str) -> Vec<Value> {
    let mut answer = ureq::post(url).send(sql).unwrap();
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Empties one database of Redis.
pub(crate) fn redis_flush(url: &str, database: u32) {
    let address = url.trim_start_matches("redis://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(format!("SELECT {database}\r\nFLUSHDB\r\n").as_bytes()).unwrap();
    let mut replies = BufReader::new(stream).lines();
    for _ in 0..2 {
        assert_eq!(replies.next().unwrap().unwrap(), "+OK");
    }
}

/// Where each partition of a topic ends.
pub(crate) fn kafka_ends(brokers: &str, topic: &str, partitions: i32) -> Vec<i64> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let end = |partition| consumer.fetch_watermarks(topic, partition, TIMEOUT).unwrap().1;
    (0..partitions).map(end).collect()
}

/// Appends records that the program did not make.
pub(crate) fn kafka_append(brokers: &str, topic: &str, records: &[(i32, Vec<u8>)]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("acks", "all").create().unwrap();
    for (partition, value) in records {
        let record = BaseRecord::<(), [u8]>::to(topic).partition(*partition).payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}
