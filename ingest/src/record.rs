//! The way of events from the door to the log.

use std::collections::HashSet;

use edge::Problem;
use metering::Unavailable;
use metering::quota::{Grant, Standing, Verdict};
use metering::usage::{
    AdmittedEvent, AppendError, Flag, Flags, Known, KnownEvent, Offset, Settled,
};

use crate::candidate::Candidate;
use crate::together::Went;
use crate::{Ingest, LookUp, refusal, unknown_user};

/// What became of one event.
pub(crate) enum Outcome {
    /// Durable now.
    Accepted { flags: Flags, standing: Standing },
    /// Durable before: counted, or on its way with these flags and this standing.
    Duplicate(Option<(Flags, Standing)>),
    /// Not taken.
    Refused(Problem),
}

/// The events of one request on their way; all of them are in step.
struct Run<'a> {
    ingest: &'a Ingest,
    candidates: Vec<Option<Candidate>>,
    outcomes: Vec<Option<Outcome>>,
    /// Everything below it was looked at by the first look-up.
    looked_below: Option<Offset>,
}

impl Ingest {
    /// Takes one event, together with those of other requests if that is no slower.
    ///
    /// # Errors
    /// 503: it may not be acknowledged, and may be recorded.
    pub(crate) async fn record_one(&self, candidate: Candidate) -> Result<Outcome, Problem> {
        let candidate = match self.together() {
            None => candidate,
            Some(together) => {
                let went = together.go(candidate, edge::trace_parent()).await;
                match went.map_err(not_confirmed)? {
                    Went::Accepted(outcome) => return Ok(outcome),
                    Went::Alone(candidate) => candidate,
                }
            }
        };
        self.record(vec![candidate]).await?.pop().ok_or_else(without_outcome)
    }

    /// Takes each event, or says why not; all that is taken is durable when this answers.
    ///
    /// One look-up, one admission and one append for all of them.
    ///
    /// # Errors
    /// 503: none of them may be acknowledged, and any may be recorded.
    pub(crate) async fn record(&self, candidates: Vec<Candidate>) -> Result<Vec<Outcome>, Problem> {
        let outcomes = candidates.iter().map(|_| None).collect();
        let candidates = candidates.into_iter().map(Some).collect();
        let mut run = Run { ingest: self, candidates, outcomes, looked_below: None };
        if self.parts().look_up == LookUp::Every {
            run.tell_known().await?;
        }
        let verdicts = run.admit().await?;
        let verdicts = run.tell_known_since(verdicts).await?;
        let admitted = run.settle(verdicts);
        if !admitted.is_empty() {
            let unmetered = admitted.iter().filter(|one| one.flags.has(Flag::Unmetered)).count();
            let appended = self.parts().log.append(admitted, edge::trace_parent());
            appended.await.map_err(not_confirmed)?;
            self.metrics().unmetered(unmetered.try_into().unwrap_or(u64::MAX));
        }
        run.outcomes.into_iter().map(|outcome| outcome.ok_or_else(without_outcome)).collect()
    }
}

fn without_outcome() -> Problem {
    Problem::internal("an event without an outcome")
}

fn not_confirmed(error: AppendError) -> Problem {
    match error {
        AppendError::Unavailable(unavailable) => unavailable.into(),
        AppendError::Lapsed => Unavailable::new("event_log", error).into(),
    }
}

impl Run<'_> {
    fn candidate(&self, index: usize) -> Result<&Candidate, Problem> {
        let missing = || Problem::internal("an event was taken twice");
        self.candidates.get(index).and_then(Option::as_ref).ok_or_else(missing)
    }

    /// Asks the ledger for these events.
    async fn look_up(&self, indices: &[usize]) -> Result<Known, Problem> {
        let mut ids = Vec::with_capacity(indices.len());
        for index in indices {
            let candidate = self.candidate(*index)?;
            ids.push((candidate.event.user_id, candidate.id_digest));
        }
        let known = self.ingest.parts().lookup.known(&ids).await?;
        if known.found.len() == ids.len() {
            return Ok(known);
        }
        Err(Unavailable::new("ledger", "it answered another number of ids than asked").into())
    }

    /// Answers events that were counted before.
    async fn tell_known(&mut self) -> Result<(), Problem> {
        let asked: Vec<usize> = (0..self.candidates.len())
            .filter(|index| self.candidate(*index).is_ok_and(Candidate::has_clients_id))
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let known = self.look_up(&asked).await?;
        for (index, found) in asked.into_iter().zip(known.found) {
            if let Some(found) = found {
                self.outcomes[index] = Some(repeat_of(self.candidate(index)?, found));
            }
        }
        self.looked_below = Some(known.cursor);
        Ok(())
    }

    /// Asks the counter for all that have no outcome yet.
    async fn admit(&self) -> Result<Vec<(usize, Verdict)>, Problem> {
        let open: Vec<usize> =
            (0..self.outcomes.len()).filter(|index| self.outcomes[*index].is_none()).collect();
        if open.is_empty() {
            return Ok(vec![]);
        }
        self.ingest.parts().log.has_room()?;
        let mut asked = Vec::with_capacity(open.len());
        for index in &open {
            asked.push(self.candidate(*index)?.admission());
        }
        let verdicts = self.ingest.parts().counter.admit(&asked).await?;
        if verdicts.len() == open.len() {
            return Ok(open.into_iter().zip(verdicts).collect());
        }
        Err(Unavailable::new("quota_counter", "it gave another number of verdicts").into())
    }

    /// Between look-up and admission an event may have been counted, and its entry may have left
    /// the counter: asks again where that can be, and takes back what was let in anew.
    async fn tell_known_since(
        &mut self,
        verdicts: Vec<(usize, Verdict)>,
    ) -> Result<Vec<(usize, Verdict)>, Problem> {
        let doubtful: Vec<&(usize, Verdict)> = verdicts
            .iter()
            .filter(|(index, verdict)| {
                let chosen = self.candidate(*index).is_ok_and(Candidate::has_clients_id);
                chosen && self.is_doubtful(verdict)
            })
            .collect();
        if doubtful.is_empty() {
            return Ok(verdicts);
        }
        let indices: Vec<usize> = doubtful.iter().map(|(index, _)| *index).collect();
        let known = self.look_up(&indices).await?;
        let mut withdrawn = Vec::new();
        for ((index, verdict), found) in doubtful.into_iter().zip(known.found) {
            let Some(found) = found else { continue };
            let candidate = self.candidate(*index)?;
            if is_surplus(verdict, found) {
                withdrawn.push(Settled {
                    user_id: candidate.event.user_id,
                    period: candidate.period,
                    id_digest: candidate.id_digest,
                });
            }
            self.outcomes[*index] = Some(repeat_of(candidate, found));
        }
        if !withdrawn.is_empty() {
            self.ingest.parts().counter.withdraw(&withdrawn).await?;
        }
        Ok(verdicts.into_iter().filter(|(index, _)| self.outcomes[*index].is_none()).collect())
    }

    /// Whether the ledger may know more of the event than this verdict says.
    fn is_doubtful(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Granted(grant) | Verdict::Repeated(grant) => {
                self.looked_below.is_some_and(|below| below < grant.cursor)
            }
            // The id may be counted with the very content that is refused here.
            Verdict::Refused(..) | Verdict::Conflict(_) => true,
            Verdict::UnknownUser => false,
        }
    }

    /// Turns verdicts into outcomes, and hands out what is to be appended.
    fn settle(&mut self, verdicts: Vec<(usize, Verdict)>) -> Vec<AdmittedEvent> {
        let mut admitted = Vec::with_capacity(verdicts.len());
        let mut in_this_request = HashSet::new();
        if verdicts.iter().any(|(_, verdict)| matches!(verdict, Verdict::Repeated(_))) {
            let granted = verdicts.iter().filter(|(_, v)| matches!(v, Verdict::Granted(_)));
            let granted = granted.filter_map(|(index, _)| self.candidate(*index).ok());
            in_this_request = granted.map(|candidate| candidate.id_digest).collect();
        }
        for (index, verdict) in verdicts {
            let Some(candidate) = self.candidates[index].take() else { continue };
            self.outcomes[index] = Some(match verdict {
                Verdict::Granted(grant) => {
                    let (event, outcome) = accepted(candidate, grant);
                    admitted.push(event);
                    outcome
                }
                Verdict::Repeated(grant) => {
                    let known = (grant.flags, grant.standing.clone());
                    // One that is in flight from another request is published again: that
                    // request may have failed. One of this request is in the append already.
                    if in_this_request.insert(candidate.id_digest) {
                        admitted.push(to_log(candidate, grant));
                    }
                    Outcome::Duplicate(Some(known))
                }
                Verdict::Conflict(_) => Outcome::Refused(refusal::event_id_reused()),
                Verdict::UnknownUser => Outcome::Refused(unknown_user()),
                Verdict::Refused(why, standing) => {
                    Outcome::Refused(refusal::of_event(self.ingest, &candidate, why, &standing))
                }
            });
        }
        admitted
    }
}

/// Whether the counter let in anew what its totals had already. What was counted only after the
/// grant, through another request's repeat, is not in them yet: its entry leaves with the sync that
/// brings it, and taking it back sooner would free its room for a moment.
fn is_surplus(verdict: &Verdict, found: KnownEvent) -> bool {
    matches!(verdict, Verdict::Granted(grant) if found.offset < grant.cursor)
}

fn repeat_of(candidate: &Candidate, found: KnownEvent) -> Outcome {
    if found.content == candidate.content_digest {
        Outcome::Duplicate(None)
    } else {
        Outcome::Refused(refusal::event_id_reused())
    }
}

/// An event that was let in: what is appended, and its outcome once it is durable.
pub(crate) fn accepted(candidate: Candidate, grant: Grant) -> (AdmittedEvent, Outcome) {
    let (flags, standing) = (grant.flags, grant.standing.clone());
    (to_log(candidate, grant), Outcome::Accepted { flags, standing })
}

fn to_log(candidate: Candidate, grant: Grant) -> AdmittedEvent {
    AdmittedEvent {
        event: candidate.event,
        id_digest: candidate.id_digest,
        content_digest: candidate.content_digest,
        plan: grant.standing.plan,
        admitted_at: grant.admitted_at,
        flags: grant.flags,
        over_hold: grant.over_hold,
    }
}

#[cfg(test)]
mod tests {
    use metering::quota::{PlanName, Refused, Totals};
    use metering::time::Timestamp;
    use metering::usage::ContentDigest;

    use super::*;

    #[test]
    fn only_what_this_request_was_granted_on_top_of_the_totals_is_surplus() {
        let standing = Standing {
            plan: PlanName::new("free"),
            used: Totals::default(),
            token_limit: None,
            request_limits: [None; 3],
        };
        let grant = Grant {
            admitted_at: Timestamp::default(),
            cursor: Offset::new(10),
            flags: Flags::default(),
            over_hold: 0,
            standing: standing.clone(),
        };
        let found =
            |offset| KnownEvent { offset: Offset::new(offset), content: ContentDigest([0; 8]) };
        assert!(is_surplus(&Verdict::Granted(grant.clone()), found(9)));
        assert!(!is_surplus(&Verdict::Granted(grant.clone()), found(10)));
        assert!(!is_surplus(&Verdict::Repeated(grant), found(9)));
        assert!(!is_surplus(&Verdict::Refused(Refused::TokenLimit, standing), found(9)));
    }
}
