//! Asking where partitions begin and end.

use metering::Unavailable;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::settings::QUERY_TIMEOUT;
use super::unavailable;

/// The oldest record that is kept and one past the last, as Kafka counts. Blocks on the brokers.
///
/// # Errors
/// [`Unavailable`]: the partition's leader did not answer; a new one needs a moment until it does.
pub(super) fn bounds<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    number: i32,
) -> Result<(i64, i64), Unavailable> {
    let ask = |place| {
        let answer = query(consumer, topic, [number], place).map_err(unavailable)?;
        found(&answer, topic, number)
    };
    Ok((ask(KafkaOffset::Beginning)?, ask(KafkaOffset::End)?))
}

/// Asks the brokers for the first or last offsets of these partitions, all or none.
///
/// The library has a question for both at once, `rd_kafka_query_watermark_offsets`; when only one of
/// its two requests fails it may hide that, and tell the first offset as the end.
pub(super) fn query<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    numbers: impl IntoIterator<Item = i32>,
    place: KafkaOffset,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for number in numbers {
        // In this question an offset is a time, and both ends are times of their own.
        list.add_partition_offset(topic, number, place)?;
    }
    consumer.offsets_for_times(list, QUERY_TIMEOUT)
}

/// What [`query`] was told of a partition.
pub(super) fn found(
    answer: &TopicPartitionList,
    topic: &str,
    number: i32,
) -> Result<i64, Unavailable> {
    let Some(answer) = answer.find_partition(topic, number) else {
        return Err(unavailable(format!("partition {number} was not answered")));
    };
    answer.error().map_err(unavailable)?;
    match answer.offset() {
        KafkaOffset::Offset(offset) => Ok(offset),
        other => Err(unavailable(format!("partition {number} begins or ends at {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    /// Of a topic whose leader answers with these first.
    fn bounds_after(answers: &[RDKafkaRespErr]) -> Result<(i64, i64), Unavailable> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("log", 1, 1).unwrap();
        cluster.request_errors(RDKafkaApiKey::ListOffsets, answers);
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .unwrap();
        bounds(&consumer, "log", 0)
    }

    #[test]
    fn both_ends_are_told_or_none() {
        let answered = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        // What a new leader says until its followers have fetched from it (KIP-207).
        let unsure = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE;
        assert_eq!(bounds_after(&[answered, answered]).unwrap(), (0, 0));
        for failing in [&[unsure][..], &[answered, unsure]] {
            let error = bounds_after(failing).unwrap_err();
            assert!(error.reason.contains("OffsetNotAvailable"), "{error}");
        }
    }
}
