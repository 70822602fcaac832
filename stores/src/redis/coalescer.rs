//! Puts the admissions that wait at a moment into one pipeline, without waiting for more: an idle
//! counter adds no delay, and a busy one sends few and large calls.

use std::sync::Arc;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{Admission, Verdict};
use metering::usage::Partition;
use tokio::sync::{mpsc, oneshot};

use super::library::Function;
use super::link::Call;
use super::shared::{CALL_MAX, Reply, Shared};
use super::unavailable;
use super::wire::{self, Told};

/// Requests that wait at a time, and that go into one pipeline. Beyond it requests wait at the
/// door; too many make one pipeline long for the first of them.
const JOBS_MAX: usize = 1024;

/// One verdict, and the name of the epoch that gave it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) told: Told<Verdict>,
    pub(super) partition: Partition,
    pub(super) nonce: u64,
}

/// Hands admissions to the task that sends them.
pub(super) struct Coalescer {
    jobs: mpsc::Sender<Job>,
}

struct Job {
    asked: Vec<Asked>,
    answer: oneshot::Sender<Vec<Result<Answer, Unavailable>>>,
}

struct Asked {
    partition: Partition,
    user: UserId,
    event: Vec<u8>,
}

/// Whose event something is: which job, which of its events.
type Place = (usize, usize);

/// A call, and whose events are in it, user by user.
struct Planned {
    partition: Partition,
    call: Call,
    users: Vec<Vec<Place>>,
}

impl Coalescer {
    /// Starts the task; it ends with the last sender.
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        tokio::spawn(send_what_waits(shared, waiting));
        Self { jobs }
    }

    /// The verdicts in the order asked.
    pub(super) async fn admit(
        &self,
        shared: &Shared,
        asked: impl Iterator<Item = &Admission>,
    ) -> Result<Vec<Result<Answer, Unavailable>>, Unavailable> {
        let asked = asked.map(|one| Asked {
            partition: shared.partition_of(one.user_id),
            user: one.user_id,
            event: wire::event(one),
        });
        let (answer, answered) = oneshot::channel();
        let job = Job { asked: asked.collect(), answer };
        let gone = "the task that asks for admissions has ended";
        self.jobs.send(job).await.map_err(|_| unavailable(gone))?;
        answered.await.map_err(|_| unavailable(gone))
    }
}

async fn send_what_waits(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Job>) {
    let mut jobs = Vec::new();
    while waiting.recv_many(&mut jobs, JOBS_MAX).await > 0 {
        let answers = run(&shared, &jobs).await;
        for (job, answers) in jobs.drain(..).zip(answers) {
            // Whoever asked may have gone away; its entries are forgotten by themselves.
            drop(job.answer.send(answers));
        }
    }
}

async fn run(shared: &Shared, jobs: &[Job]) -> Vec<Vec<Result<Answer, Unavailable>>> {
    let mut answers: Vec<Vec<_>> =
        jobs.iter().map(|job| job.asked.iter().map(|_| None).collect()).collect();
    let planned = plan(shared, jobs);
    let (calls, members): (Vec<_>, Vec<_>) =
        planned.into_iter().map(|one| (one.call, (one.partition, one.users))).unzip();
    let replies = match shared.run(&calls).await {
        Ok(replies) => replies,
        Err(reason) => calls.iter().map(|_| Err(reason.clone())).collect(),
    };
    for ((partition, users), reply) in members.into_iter().zip(replies) {
        for (place, members) in users.into_iter().enumerate() {
            let told = match &reply {
                Ok(reply) => read(reply, partition, place, members.len()),
                Err(reason) => Err(reason.clone()),
            };
            match told {
                Ok(told) => {
                    for ((job, event), one) in members.into_iter().zip(told) {
                        answers[job][event] = Some(Ok(one));
                    }
                }
                Err(reason) => {
                    for (job, event) in members {
                        answers[job][event] = Some(Err(reason.clone()));
                    }
                }
            }
        }
    }
    let told = |answer: Option<_>| answer.unwrap_or_else(|| Err(unavailable("was not answered")));
    answers.into_iter().map(|answers| answers.into_iter().map(told).collect()).collect()
}

fn read(
    reply: &Reply,
    partition: Partition,
    user: usize,
    count: usize,
) -> Result<Vec<Answer>, Unavailable> {
    let served = reply.served()?;
    let told = wire::verdicts(reply.string(user)?, count, &served)?;
    let nonce = served.nonce;
    Ok(told.into_iter().map(|told| Answer { told, partition, nonce }).collect())
}

/// Events by partition and user; those of one user stay in order.
fn plan(shared: &Shared, jobs: &[Job]) -> Vec<Planned> {
    let mut all: Vec<(Place, &Asked)> = Vec::new();
    for (number, job) in jobs.iter().enumerate() {
        all.extend(job.asked.iter().enumerate().map(|(place, one)| ((number, place), one)));
    }
    all.sort_by_key(|(_, one)| (one.partition, *one.user.as_bytes()));
    let mut planned: Vec<Planned> = Vec::new();
    for partition in all.chunk_by(|(_, one), (_, next)| one.partition == next.partition) {
        for events in partition.chunks(CALL_MAX) {
            planned.push(plan_call(shared, events));
        }
    }
    planned
}

/// A call for events of one partition, which are not none.
fn plan_call(shared: &Shared, events: &[(Place, &Asked)]) -> Planned {
    let partition = events.first().map_or(Partition::SINGLE, |(_, one)| one.partition);
    let (mut arguments, mut users) = (vec![shared.now()], Vec::new());
    for of_user in events.chunk_by(|(_, one), (_, next)| one.user == next.user) {
        let mut group = Vec::with_capacity(16 + 55 * of_user.len());
        if let Some((_, one)) = of_user.first() {
            group.extend(one.user.as_bytes());
        }
        of_user.iter().for_each(|(_, one)| group.extend(&one.event));
        arguments.push(group);
        users.push(of_user.iter().map(|(place, _)| *place).collect());
    }
    Planned { partition, call: shared.call(Function::Admit, partition, arguments), users }
}
