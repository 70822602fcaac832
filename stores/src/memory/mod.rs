//! The single node's quota counter: a lock around the admission state machine.
