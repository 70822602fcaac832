//! The program `tokenmeter`.

/// Also in place of C's `malloc`, for SQLite and Kafka's library. What is allocated on one thread is
/// freed on another here, from a request to a commit: the C library's allocator took an eighth to a fifth
/// of all processor time on the single node for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
