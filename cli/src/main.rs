//! The program `tokenmeter`.

/// Also in place of C's `malloc`, for SQLite and Kafka's library. What is allocated on one thread is
/// freed on another here, from a request to a commit, which costs the C library's allocator a fifth of
/// all processor time on the single node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
