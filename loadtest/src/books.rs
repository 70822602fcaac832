//! The client's own list of what was acknowledged, and its comparison with what the server
//! counted: acknowledged ⊆ counted ⊆ sent, each once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::load::Outcome;
use crate::traffic::{Event, Traffic};

const ACKNOWLEDGED: u8 = 1;
const REFUSED: u8 = 2;
const IN_DOUBT: u8 = 4;
const COUNTED: u8 = 8;

/// So many differences are spelled out.
const SHOWN_MAX: usize = 20;

/// One byte for each event, by its number: all else about it follows from the number.
pub(crate) struct Books(Mutex<Vec<u8>>);

/// Distinct events by what the client was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct BooksSummary {
    /// All that were sent.
    pub(crate) sent: u64,
    /// Those that must be counted.
    pub(crate) acknowledged: u64,
    /// Those that may be counted or not.
    pub(crate) in_doubt: u64,
    /// Those that must not be counted.
    pub(crate) refused: u64,
}

/// Events and tokens of one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserSums {
    pub(crate) events: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
}

impl UserSums {
    fn add(&mut self, event: &Event) {
        self.events += 1;
        self.prompt_tokens += u64::from(event.prompt_tokens);
        self.completion_tokens += u64::from(event.completion_tokens);
    }

    fn at_most(self, other: Self) -> bool {
        self.events <= other.events
            && self.prompt_tokens <= other.prompt_tokens
            && self.completion_tokens <= other.completion_tokens
    }
}

/// An event as the server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CountedRow {
    pub(crate) event_id: String,
    pub(crate) request_type: String,
    pub(crate) model: String,
    pub(crate) prompt_tokens: u32,
    pub(crate) completion_tokens: u32,
    pub(crate) cached_tokens: u32,
}

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Audit {
    /// Events that the server has counted.
    pub(crate) counted: u64,
    /// Acknowledged and not counted: the promise is broken.
    pub(crate) missing: u64,
    /// Counted more than once.
    pub(crate) repeated: u64,
    /// Counted, but never sent, refused, of another user or with another content.
    pub(crate) foreign: u64,
    /// Users whose sums are not what they can be, or are past a limit.
    pub(crate) wrong_users: u64,
    /// The first few of all these, for people.
    pub(crate) differences: Vec<String>,
}

impl Audit {
    /// Whether everything is as promised.
    pub(crate) fn balanced(&self) -> bool {
        self.missing + self.repeated + self.foreign + self.wrong_users == 0
    }

    fn explain(&mut self, difference: impl FnOnce() -> String) {
        if self.differences.len() < SHOWN_MAX {
            self.differences.push(difference());
        }
    }

    /// One user's sums, compared with the least and the most that they can be.
    pub(crate) fn user_sums(
        &mut self,
        user: &str,
        counted: UserSums,
        bounds: (UserSums, UserSums),
    ) {
        self.counted += counted.events;
        let (least, most) = bounds;
        if !least.at_most(counted) || !counted.at_most(most) {
            self.wrong_users += 1;
            self.explain(|| format!("{user} has {counted:?}, not {least:?} to {most:?}"));
        }
    }

    /// One user's tokens against their limit.
    pub(crate) fn limit(&mut self, user: &str, used: u64, limit: Option<u64>) {
        if limit.is_some_and(|limit| used > limit) {
            self.wrong_users += 1;
            self.explain(|| format!("{user} has used {used}, past their limit {limit:?}"));
        }
    }
}

impl Books {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Notes what was said about these events.
    pub(crate) fn note(&self, numbers: &[u64], outcomes: &[Outcome]) {
        let mut fates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, outcome) in numbers.iter().zip(outcomes) {
            let Ok(at) = usize::try_from(*number) else { continue };
            if at >= fates.len() {
                fates.resize(at + 1, 0);
            }
            fates[at] |= match outcome {
                Outcome::Accepted | Outcome::Duplicate => ACKNOWLEDGED,
                Outcome::Refused => REFUSED,
                Outcome::InDoubt => IN_DOUBT,
            };
        }
    }

    /// How many of each.
    pub(crate) fn summary(&self) -> BooksSummary {
        let fates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut summary = BooksSummary::default();
        for fate in fates.iter().filter(|fate| **fate != 0) {
            summary.sent += 1;
            match told(*fate) {
                Told::Acknowledged => summary.acknowledged += 1,
                Told::InDoubt => summary.in_doubt += 1,
                Told::Refused => summary.refused += 1,
            }
        }
        summary
    }

    /// The least and the most that each user's sums can be, by index.
    pub(crate) fn bounds(&self, traffic: &Traffic) -> Vec<(UserSums, UserSums)> {
        let fates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bounds = vec![<(UserSums, UserSums)>::default(); traffic.users.len()];
        for (number, fate) in (0..).zip(fates.iter()).filter(|(_, fate)| **fate != 0) {
            let event = traffic.event(number);
            let (least, most) = &mut bounds[event.user];
            match told(*fate) {
                Told::Acknowledged => {
                    least.add(&event);
                    most.add(&event);
                }
                Told::InDoubt => most.add(&event),
                Told::Refused => {}
            }
        }
        bounds
    }

    /// Ticks off one event that the server shows for that user.
    pub(crate) fn tick_off(
        &self,
        traffic: &Traffic,
        user: usize,
        row: &CountedRow,
        audit: &mut Audit,
    ) {
        audit.counted += 1;
        let mut fates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = traffic.number_of(&row.event_id);
        let at = number.and_then(|number| usize::try_from(number).ok());
        let fate = at.and_then(|at| fates.get_mut(at)).filter(|fate| **fate != 0);
        let (Some(number), Some(fate)) = (number, fate) else {
            audit.foreign += 1;
            audit.explain(|| format!("{} was never sent", row.event_id));
            return;
        };
        if *fate & COUNTED != 0 {
            audit.repeated += 1;
            audit.explain(|| format!("{} is counted more than once", row.event_id));
        } else if told(*fate) == Told::Refused {
            audit.foreign += 1;
            audit.explain(|| format!("{} was refused and is counted", row.event_id));
        } else if !same(&traffic.event(number), user, row) {
            audit.foreign += 1;
            audit.explain(|| format!("{} is counted as {row:?} of user {user}", row.event_id));
        }
        *fate |= COUNTED;
    }

    /// After all that was counted is ticked off: what is missing. The ticks are removed.
    pub(crate) fn close(&self, audit: &mut Audit) {
        let mut fates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, fate) in fates.iter_mut().enumerate() {
            if *fate & COUNTED == 0 && *fate & ACKNOWLEDGED != 0 {
                audit.missing += 1;
                audit.explain(|| format!("event {number} was acknowledged and is not counted"));
            }
            *fate &= !COUNTED;
        }
    }
}

#[derive(PartialEq, Eq)]
enum Told {
    Acknowledged,
    InDoubt,
    Refused,
}

/// One acknowledgement is enough; a refusal only counts when nothing else was ever said.
fn told(fate: u8) -> Told {
    if fate & ACKNOWLEDGED != 0 {
        Told::Acknowledged
    } else if fate & IN_DOUBT != 0 {
        Told::InDoubt
    } else {
        Told::Refused
    }
}

fn same(event: &Event, user: usize, row: &CountedRow) -> bool {
    event.user == user
        && event.request_type == row.request_type
        && event.model == row.model
        && event.prompt_tokens == row.prompt_tokens
        && event.completion_tokens == row.completion_tokens
        && event.cached_tokens == row.cached_tokens
}

/// Reads the events of a history as CSV, by the names of its columns.
///
/// # Errors
/// When a column is missing or a row is not as the contract says.
pub(crate) fn read_history(text: &[u8]) -> anyhow::Result<Vec<CountedRow>> {
    let mut reader = csv::Reader::from_reader(text);
    let columns: HashMap<String, usize> =
        reader.headers()?.iter().enumerate().map(|(at, name)| (name.to_owned(), at)).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let field = |name: &str| {
            let at =
                columns.get(name).ok_or_else(|| anyhow::anyhow!("there is no column {name}"))?;
            record.get(*at).ok_or_else(|| anyhow::anyhow!("a row has no {name}"))
        };
        rows.push(CountedRow {
            event_id: field("event_id")?.to_owned(),
            request_type: field("request_type")?.to_owned(),
            model: field("model")?.to_owned(),
            prompt_tokens: field("prompt_tokens")?.parse()?,
            completion_tokens: field("completion_tokens")?.parse()?,
            cached_tokens: field("cached_tokens")?.parse()?,
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::traffic;

    fn row_of(traffic: &Traffic, number: u64) -> CountedRow {
        let event = traffic.event(number);
        CountedRow {
            event_id: format!("0000abcd-0000-4000-8000-{number:012x}"),
            request_type: event.request_type.to_owned(),
            model: event.model.to_owned(),
            prompt_tokens: event.prompt_tokens,
            completion_tokens: event.completion_tokens,
            cached_tokens: event.cached_tokens,
        }
    }

    fn audit(books: &Books, traffic: &Traffic, counted: &[u64]) -> Audit {
        let mut audit = Audit::default();
        for number in counted {
            let user = traffic.event(*number).user;
            books.tick_off(traffic, user, &row_of(traffic, *number), &mut audit);
        }
        books.close(&mut audit);
        audit
    }

    /// 0 and 1 acknowledged, 2 in doubt, 3 refused, 4 refused and then acknowledged.
    fn books() -> Books {
        use Outcome::{Accepted, Duplicate, InDoubt, Refused};
        let books = Books::new();
        books.note(&[0, 1, 2, 3, 4], &[Accepted, Duplicate, InDoubt, Refused, Refused]);
        books.note(&[4], &[Accepted]);
        books
    }

    #[test]
    fn what_was_acknowledged_must_be_counted_and_what_is_in_doubt_may_be() {
        let (books, traffic) = (books(), traffic(5, 0.0, 0.0));
        let summary = BooksSummary { sent: 5, acknowledged: 3, in_doubt: 1, refused: 1 };
        assert_eq!(books.summary(), summary);
        assert!(audit(&books, &traffic, &[0, 1, 4]).balanced());
        assert!(audit(&books, &traffic, &[4, 2, 1, 0]).balanced());
        assert_eq!(audit(&books, &traffic, &[0, 1]).missing, 1);
    }

    #[test]
    fn nothing_is_counted_twice_after_a_refusal_or_unsent() {
        let (books, traffic) = (books(), traffic(5, 0.0, 0.0));
        assert_eq!(audit(&books, &traffic, &[0, 1, 4, 1]).repeated, 1);
        assert_eq!(audit(&books, &traffic, &[0, 1, 4, 3]).foreign, 1);
        assert_eq!(audit(&books, &traffic, &[0, 1, 4, 5]).foreign, 1);
    }

    #[test]
    fn an_event_must_be_counted_for_its_user_with_its_content() {
        let (books, traffic) = (books(), traffic(5, 0.0, 0.0));
        let user = traffic.event(0).user;
        let row = row_of(&traffic, 0);
        for (user, row) in [
            (user + 1, row.clone()),
            (user, CountedRow { prompt_tokens: row.prompt_tokens + 1, ..row.clone() }),
            (user, CountedRow { model: "another".to_owned(), ..row }),
        ] {
            let mut audit = Audit::default();
            books.tick_off(&traffic, user, &row, &mut audit);
            assert_eq!(audit.foreign, 1, "{row:?}");
            books.close(&mut Audit::default());
        }
    }

    #[test]
    fn sums_lie_between_what_was_acknowledged_and_what_may_be_counted() {
        let (books, traffic) = (books(), traffic(1, 0.0, 0.0));
        let bounds = books.bounds(&traffic)[0];
        let (least, most) = bounds;
        assert_eq!((least.events, most.events), (3, 4));
        let check = |counted| {
            let mut audit = Audit::default();
            audit.user_sums("u", counted, bounds);
            audit.balanced()
        };
        assert!(check(least) && check(most));
        assert!(!check(UserSums { events: 2, ..least }));
        assert!(!check(UserSums { prompt_tokens: most.prompt_tokens + 1, ..most }));
    }

    #[test]
    fn a_passed_limit_is_a_difference() {
        let mut audit = Audit::default();
        audit.limit("u", 100, Some(100));
        audit.limit("u", 1_000_000, None);
        assert!(audit.balanced());
        audit.limit("u", 101, Some(100));
        assert_eq!((audit.wrong_users, audit.differences.len()), (1, 1));
    }

    #[test]
    fn history_is_read_by_the_names_of_its_columns() {
        let text = b"event_id,cached_tokens,model,request_type,prompt_tokens,completion_tokens,metadata\r\n\
            a,1,gpt-4o-mini,chat,2,3,\"{\"\"note\"\":\"\"x,y\"\"}\"\r\n";
        let rows = read_history(text).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].event_id.as_str(), rows[0].completion_tokens), ("a", 3));
        assert!(read_history(b"event_id,model\r\na,b\r\n").is_err());
        assert_eq!(read_history(b"event_id\r\n").unwrap(), []);
    }
}
