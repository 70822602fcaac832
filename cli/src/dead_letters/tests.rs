use std::sync::Mutex;

use async_trait::async_trait;
use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::{ManualClock, Timestamp};
use metering::trace::TraceParent;
use metering::usage::{
    Appended, EventId, Flags, IdOrigin, ModelName, Offset, Partition, RequestType, TokenCounts,
    UsageEvent,
};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn admitted(id: &str) -> Box<AdmittedEvent> {
    let event = UsageEvent {
        user_id: UserId::from_bytes([7; 16]),
        event_id: EventId::new(id).unwrap(),
        id_origin: IdOrigin::Client,
        request_type: RequestType::Chat,
        model: ModelName::new("gpt-4"),
        tokens: TokenCounts::default(),
        occurred_at: Timestamp::default(),
        occurred_at_given: true,
        received_at: Timestamp::default(),
        reservation_id: None,
        metadata: None,
    };
    Box::new(AdmittedEvent {
        id_digest: event.id_digest(),
        content_digest: event.content_digest(),
        event,
        plan: PlanName::new("free"),
        admitted_at: Timestamp::default(),
        flags: Flags::default(),
        over_hold: 0,
    })
}

fn letter(offset: u64, reason: &str, event: Option<&str>) -> ListedDeadLetter {
    ListedDeadLetter {
        partition: Partition::SINGLE,
        offset: Offset::new(offset),
        log_time: Timestamp::default(),
        reason: reason.to_owned(),
        detail: String::new(),
        event: event.map(admitted),
        bytes: 0,
        replayed_at: None,
    }
}

/// Dead letters in memory, and a log that keeps what it is given or is away.
struct Fakes {
    letters: Mutex<Vec<ListedDeadLetter>>,
    appended: Mutex<Vec<AdmittedEvent>>,
    away: bool,
}

#[async_trait]
impl DeadLetters for Fakes {
    async fn list(&self) -> Result<Vec<ListedDeadLetter>, Unavailable> {
        Ok(self.letters.lock().unwrap().clone())
    }

    async fn replayed(
        &self,
        _: Partition,
        offset: Offset,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        let mut letters = self.letters.lock().unwrap();
        let found = letters.iter_mut().find(|letter| letter.offset == offset).unwrap();
        found.replayed_at = Some(now);
        Ok(())
    }
}

#[async_trait]
impl EventLog for Fakes {
    async fn append(
        &self,
        events: Vec<AdmittedEvent>,
        _: Option<TraceParent>,
    ) -> Result<Vec<Appended>, AppendError> {
        if self.away {
            return Err(AppendError::Lapsed);
        }
        let appended = vec![Appended { log_time: NOW }; events.len()];
        self.appended.lock().unwrap().extend(events);
        Ok(appended)
    }
}

fn replayer(away: bool) -> (Arc<Fakes>, Replayer) {
    let letters = vec![
        letter(3, "undecodable", Some("readable-today")),
        letter(5, "undecodable", None),
        letter(8, "event_id_reused", Some("taken")),
    ];
    let fakes = Arc::new(Fakes { letters: Mutex::new(letters), appended: Mutex::default(), away });
    let clock = Arc::new(ManualClock::at(NOW));
    let replayer = Replayer { letters: fakes.clone(), log: fakes.clone(), clock };
    (fakes, replayer)
}

#[tokio::test]
async fn what_can_be_read_today_is_appended_once_and_flagged() {
    let (fakes, replayer) = replayer(false);
    let done = replayer.replay().await.unwrap();
    assert_eq!((done.replayed, done.before, done.undecodable, done.event_id_reused), (1, 0, 1, 1));
    let again = replayer.replay().await.unwrap();
    assert_eq!((again.replayed, again.before), (0, 1));
    let appended = fakes.appended.lock().unwrap();
    assert_eq!(appended.len(), 1);
    assert_eq!(appended[0].event.event_id.as_str(), "readable-today");
    assert!(appended[0].flags.has(Flag::Replayed));
    assert_eq!(appended[0].admitted_at, NOW, "an old admission would have lapsed");
}

#[tokio::test]
async fn what_the_log_did_not_take_is_not_noted_as_replayed() {
    let (fakes, replayer) = replayer(true);
    assert!(replayer.replay().await.is_err());
    assert!(fakes.letters.lock().unwrap().iter().all(|letter| letter.replayed_at.is_none()));
}
