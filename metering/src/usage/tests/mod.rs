//! The fold, what an event may look like, and the digests that are fixed for ever.

mod digests;
mod folding;
mod horizon;
mod intake_paths;
mod intake_rules;
