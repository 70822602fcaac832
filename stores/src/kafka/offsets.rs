//! Offsets of the domain: the log's generation in the high 16 bits, Kafka's offset in the others.

use metering::Unavailable;
use metering::usage::Offset;

use super::unavailable;

/// Which of the topics that the log has been kept in. A later one's offsets are all larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u16);

impl Generation {
    pub(super) const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Kafka's offset as the domain counts.
    pub(super) fn offset(self, kafka: i64) -> Result<Offset, Unavailable> {
        let place = u64::try_from(kafka).unwrap_or(u64::MAX);
        let offset = Offset::first_of(self.0).plus(place);
        if offset.within_generation() == place {
            Ok(offset)
        } else {
            Err(unavailable(format!("Kafka's offset {kafka} is out of range")))
        }
    }

    /// The place in this generation's topic.
    pub(super) fn kafka(self, offset: Offset) -> Result<i64, Unavailable> {
        let generation = offset.generation();
        if generation != u64::from(self.0) {
            return Err(unavailable(format!(
                "offset {offset} is of generation {generation} of the log, and the topic is \
                 generation {}: `tokenmeter migrate --new-log` starts a generation",
                self.0
            )));
        }
        Ok(offset.within_generation().cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_holds_the_generation_and_comes_back() {
        let generation = Generation::new(3);
        let offset = generation.offset(17).unwrap();
        assert_eq!(offset, Offset::new((3 << 48) + 17));
        assert_eq!(generation.kafka(offset).unwrap(), 17);
        assert_eq!(Generation::new(0).offset(17).unwrap(), Offset::new(17));
        assert_eq!(
            Generation::new(u16::MAX).offset(i64::MAX >> 15).unwrap(),
            Offset::new(u64::MAX)
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let generation = Generation::new(1);
        assert!(generation.offset(-1).is_err());
        assert!(generation.offset(1 << 48).is_err());
        assert!(Generation::new(u16::MAX).offset(1 << 48).is_err());
    }

    #[test]
    fn an_offset_of_another_generation_is_refused() {
        let error = Generation::new(1).kafka(Offset::new(5)).unwrap_err();
        assert!(error.reason.contains("generation 0"), "{error}");
        assert!(Generation::new(1).kafka(Offset::new(2 << 48)).is_err());
    }
}
