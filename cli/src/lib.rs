//! The program `tokenmeter` as a library: settings, the wiring of services with stores, and the
//! commands beside the server. It holds no rule about usage: those are in `metering`, and what an
//! endpoint answers is the services' affair.

mod alerts;
mod backend;
mod backup;
mod commands;
mod config;
mod context;
mod data_dir;
mod dead_letters;
mod doctor;
mod key;
mod logging;
mod migrate;
mod ops_client;
mod output;
mod reconcile;
mod replay;
mod serve;
mod settings;
mod user;
mod webhook;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, FromArgMatches as _};
use edge::SystemClock;

use commands::{Command, ConfigCommand, Program};
use context::Context;
use output::{Outcome, WrongUse, complain};
use settings::Settings;

/// Runs the program on this process's arguments. The exit status is 0 for success, 1 for a negative
/// answer or a failure, 2 for wrong use.
pub fn run() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = stores::failpoints::set_up();
    // Help, version and wrong arguments end the process here, with 0 or 2.
    let matches = commands::program().get_matches();
    match dispatch(&matches) {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Negative) => ExitCode::FAILURE,
        Err(error) => {
            complain(format!("tokenmeter: {error:#}"));
            if error.is::<WrongUse>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn dispatch(matches: &ArgMatches) -> anyhow::Result<Outcome> {
    let program = Program::from_arg_matches(matches)?;
    let (settings, found) = Settings::read(&commands::levels(matches));
    match &program.command {
        Some(Command::Config(ConfigCommand::Check(output))) => {
            return config::check(settings.as_ref().err(), output.json);
        }
        Some(Command::Config(ConfigCommand::Show(output))) => {
            return config::show(&found, settings.as_ref().err(), output.json);
        }
        _ => {}
    }
    let settings = settings.map_err(|errors| WrongUse(errors.to_string()))?;
    logging::start(settings.log_format);
    let context = Context::new(settings, Arc::new(SystemClock))?;
    match &program.command {
        None | Some(Command::Serve) => serve::run(&context),
        Some(Command::User(command)) => user::run(&context, command),
        Some(Command::Key(command)) => key::run(&context, command),
        Some(Command::Replay(args)) => replay::run(&context, args),
        Some(Command::Reconcile(args)) => reconcile::run(&context, args),
        Some(Command::DeadLetters(command)) => dead_letters::run(&context, command),
        Some(Command::Alerts(command)) => alerts::run(&context, command),
        Some(Command::Backup(args)) => backup::run(&context, args),
        Some(Command::Doctor(output)) => doctor::run(&context, output),
        Some(Command::Migrate(args)) => migrate::run(&context, args),
        // Answered above, before bad settings end everything else.
        Some(Command::Config(_)) => Ok(Outcome::Success),
    }
}
