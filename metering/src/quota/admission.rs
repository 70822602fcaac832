//! The admission state machine: ledger plus in flight, holds, running sums.
