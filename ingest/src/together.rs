//! Single events, each the request of another client, on their way together.
//!
//! To admit and append many costs little more than one, and their requests are woken once, with the
//! answer. An idle service adds no delay: what comes while others are being admitted goes next.

use std::collections::HashMap;
use std::sync::Arc;

use metering::Unavailable;
use metering::quota::Verdict;
use metering::trace::TraceParent;
use metering::usage::{AdmittedEvent, AppendError, EventLog, Partition};
use tokio::sync::{mpsc, oneshot};

use crate::Parts;
use crate::candidate::Candidate;
use crate::record::{Outcome, accepted};

/// Events that are admitted at a time: the first of them waits for the last.
const TOGETHER_MAX: usize = 1024;

/// What became of an event that went with others.
pub(crate) enum Went {
    /// It is durable now.
    Accepted(Outcome),
    /// Not let in, perhaps not yet: it must go by itself. Nothing of it is recorded.
    Alone(Candidate),
}

/// Hands events to the task that passes them on.
pub(crate) struct Together {
    events: mpsc::Sender<One>,
}

struct One {
    candidate: Candidate,
    trace: Option<TraceParent>,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<Went, AppendError>>;

/// An event that was let in.
struct Admitted {
    event: AdmittedEvent,
    outcome: Outcome,
    answer: Answer,
}

impl Together {
    /// Starts the task; it ends with the last sender. Needs a runtime.
    pub(crate) fn start(parts: Arc<Parts>) -> Self {
        let (events, waiting) = mpsc::channel(TOGETHER_MAX);
        tokio::spawn(pass_what_waits(parts, waiting));
        Self { events }
    }

    /// Takes an event along.
    ///
    /// # Errors
    /// The log did not confirm it, and perhaps has it.
    pub(crate) async fn go(
        &self,
        candidate: Candidate,
        trace: Option<TraceParent>,
    ) -> Result<Went, AppendError> {
        let (answer, answered) = oneshot::channel();
        match self.events.send(One { candidate, trace, answer }).await {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(ended())),
            Err(mpsc::error::SendError(one)) => Ok(Went::Alone(one.candidate)),
        }
    }
}

fn ended() -> AppendError {
    Unavailable::new("event_log", "the task that passes single events on has ended").into()
}

async fn pass_what_waits(parts: Arc<Parts>, mut waiting: mpsc::Receiver<One>) {
    let mut events = Vec::new();
    while waiting.recv_many(&mut events, TOGETHER_MAX).await > 0 {
        let verdicts = admit(&parts, &events).await;
        let verdicts = verdicts.into_iter().chain(std::iter::repeat_with(|| None));
        for ((_, trace), admitted) in let_in(&*parts.log, events.drain(..).zip(verdicts)) {
            tokio::spawn(append(parts.log.clone(), admitted, trace));
        }
    }
}

async fn admit(parts: &Parts, events: &[One]) -> Vec<Option<Verdict>> {
    if parts.log.has_room().is_err() {
        return Vec::new();
    }
    let asked: Vec<_> = events.iter().map(|one| one.candidate.admission()).collect();
    parts.counter.admit_at_once(&asked).await
}

/// The events that were let in, by what an append may have of only one: its trace, and the partition
/// with which it fails. All others are told to go alone.
fn let_in(
    log: &dyn EventLog,
    events: impl Iterator<Item = (One, Option<Verdict>)>,
) -> HashMap<(Partition, Option<TraceParent>), Vec<Admitted>> {
    let mut appends: HashMap<_, Vec<_>> = HashMap::new();
    for (One { candidate, trace, answer }, verdict) in events {
        if let Some(Verdict::Granted(grant)) = verdict {
            let partition = log.partition_of(candidate.event.user_id);
            let (event, outcome) = accepted(candidate, grant);
            let one = Admitted { event, outcome, answer };
            appends.entry((partition, trace)).or_default().push(one);
        } else {
            // Whoever asked may have gone away.
            drop(answer.send(Ok(Went::Alone(candidate))));
        }
    }
    appends
}

async fn append(log: Arc<dyn EventLog>, admitted: Vec<Admitted>, trace: Option<TraceParent>) {
    let (mut events, mut waiting) = (Vec::new(), Vec::new());
    for Admitted { event, outcome, answer } in admitted {
        events.push(event);
        waiting.push((outcome, answer));
    }
    let failed = log.append(events, trace).await.err();
    for (outcome, answer) in waiting {
        // Whoever asked may have gone away.
        drop(answer.send(match &failed {
            None => Ok(Went::Accepted(outcome)),
            Some(error) => Err(error.clone()),
        }));
    }
}
