//! The program `tokenmeter`.

fn main() -> std::process::ExitCode {
    cli::run()
}
