//! What both worlds have: requests under way, marks, and the promise that was broken.

use metering::usage::Offset;

use super::super::world::{Request, World};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

impl World {
    pub(crate) fn request(&mut self, number: u32) -> &mut Request {
        self.requests.iter_mut().find(|request| request.number == number).unwrap()
    }

    /// A request got its answer, or nobody waits for it any more.
    pub(crate) fn end(&mut self, number: u32) {
        self.requests.retain(|request| request.number != number);
    }

    pub(crate) fn mark(&mut self, what: &'static str) {
        if !self.marks.contains(&what) {
            self.marks.push(what);
        }
    }

    /// The first one stays.
    pub(crate) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(Violation(what));
    }
}

pub(crate) fn offset(number: usize) -> Offset {
    Offset::new(u64::try_from(number).unwrap())
}
