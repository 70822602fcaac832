//! Which sorted runs of an index are merged: a log-structured merge tree (O'Neil et al. 1996) with tiers.
//!
//! What is added at a time becomes a run, and [`FAN_IN`] runs of about the same size are merged into one.
//! So an entry is written as often as there are sizes, always beside its neighbours; in one large B-tree
//! each would be written with a page of its own. An index keeps its runs in a table `runs`.

use rusqlite::{Connection, params};

use super::row::stored;

/// So many runs of about the same size become one. More are written less often, and make look-ups
/// slower: each asks all runs.
pub(super) const FAN_IN: usize = 4;

/// A row of `runs`.
pub(super) trait Run {
    /// Its key.
    fn number(&self) -> u64;
    /// Its entries, once it is complete.
    fn size(&self) -> u64;
    /// The run that takes over its entries, one part after the other.
    fn merging_into(&self) -> Option<u64>;
}

/// A merge that is under way.
pub(super) struct Merge<'r, R> {
    pub(super) target: &'r R,
    pub(super) sources: Vec<&'r R>,
}

/// Merges under way, the smallest first.
pub(super) fn under_way<R: Run>(runs: &[R]) -> Vec<Merge<'_, R>> {
    let merge = |target| Merge { target, sources: sources_of(runs, target).collect() };
    let mut merges: Vec<_> = runs.iter().map(merge).collect();
    merges.retain(|merge| !merge.sources.is_empty());
    merges.sort_by_key(|merge| merge.target.size());
    merges
}

fn sources_of<'r, R: Run>(runs: &'r [R], target: &R) -> impl Iterator<Item = &'r R> {
    let into = Some(target.number());
    runs.iter().filter(move |run| run.merging_into() == into)
}

/// Begins every merge that is due: wherever there are enough complete runs of a tier. Runs of up to
/// `smallest` entries are one tier. `make` makes a run for so many entries, and answers its number.
pub(super) fn begin_due<R: Run>(
    open: &Connection,
    runs: &[R],
    smallest: u64,
    make: impl Fn(u64) -> rusqlite::Result<u64>,
) -> rusqlite::Result<()> {
    let tier = |run: &R| (run.size() / smallest).max(1).ilog(FAN_IN as u64);
    let is_complete =
        |run: &&R| run.merging_into().is_none() && sources_of(runs, run).next().is_none();
    let mut complete: Vec<_> = runs.iter().filter(is_complete).collect();
    complete.sort_by_key(|run| tier(run));
    for of_tier in complete.chunk_by(|one, next| tier(one) == tier(next)) {
        for sources in of_tier.chunks_exact(FAN_IN) {
            let target = make(sources.iter().map(|run| run.size()).sum())?;
            for source in sources {
                open.prepare_cached("UPDATE runs SET merging_into = ? WHERE number = ?")?
                    .execute(params![stored(target)?, stored(source.number())?])?;
            }
        }
    }
    Ok(())
}

/// Ends a merge: all entries stand in the target.
pub(super) fn end<R: Run>(open: &Connection, merge: &Merge<'_, R>) -> rusqlite::Result<()> {
    let target = stored(merge.target.number())?;
    open.prepare_cached("DELETE FROM runs WHERE merging_into = ?")?.execute([target]).map(drop)
}
