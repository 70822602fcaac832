//! The program `tokenmeter`.

// Takes the place of C's `malloc`, so also for SQLite and Kafka's library. What is allocated on one thread
// is freed on another here, from a request to a commit: the C library's allocator took an eighth to a fifth
// of all processor time on the single node for it. Not a `#[global_allocator]`: that asks for an
// alignment with each allocation, and what is larger than 1 KiB then takes a longer way.
use mimalloc as _;

fn main() -> std::process::ExitCode {
    cli::run()
}
