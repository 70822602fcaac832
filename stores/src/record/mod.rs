//! The Protobuf codec of the event log's records.
