//! The command line: which commands there are and what each takes.

use std::path::PathBuf;

use clap::{ArgMatches, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use metering::accounts::{Role, Scope, UserId};
use metering::usage::DeliveryState;

use crate::settings::{add_server_flags, add_shared_flags, variable};

/// Meters language-model tokens: counts every usage event exactly once and holds plans' limits.
#[derive(Debug, Parser)]
#[command(name = "tokenmeter", version, after_help = AFTER_HELP)]
pub(crate) struct Program {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const AFTER_HELP: &str = "Without a command the server runs. Every flag has an environment \
variable: TOKENMETER_ and its name (TOKENMETER_DATA_DIR). Exit status: 0 success, 1 a negative \
answer, 2 wrong use.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server (the default)
    Serve,
    /// Make and list users
    #[command(subcommand)]
    User(UserCommand),
    /// Make, list and revoke API keys of services
    #[command(subcommand)]
    Key(KeyCommand),
    /// Send a trace of model calls over HTTP
    Replay(ReplayArgs),
    /// Compare the books; exit 0 only when every one balances
    Reconcile(ReconcileArgs),
    /// Look at records that were set aside, and append them again
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Look at alerts of users who near a limit of their plan, and at whether they were sent
    #[command(subcommand)]
    Alerts(AlertsCommand),
    /// Write one archive of all data, also while the server runs
    Backup(BackupArgs),
    /// Check data, settings and the running server
    Doctor(Output),
    /// Bring the files of the data directory, or the databases and the topic of a cluster, up to date
    Migrate(MigrateArgs),
    /// Check or show the settings
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user; without a password they cannot log in
    Create(UserCreateArgs),
    /// List all users
    List(Output),
}

#[derive(Debug, Args)]
pub(crate) struct UserCreateArgs {
    /// E-mail address, unique
    #[arg(long)]
    pub(crate) email: String,
    /// Name, only shown
    #[arg(long)]
    pub(crate) name: String,
    /// What they may do
    #[arg(long, value_enum, default_value_t = RoleArg::User)]
    pub(crate) role: RoleArg,
    /// Plan they begin on
    #[arg(long, default_value = "free")]
    pub(crate) plan: String,
    /// File whose first line is the password; - reads standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleArg {
    User,
    Admin,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::User => Self::User,
            RoleArg::Admin => Self::Admin,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// Count another topic from now on: the one of --kafka-topic, or one made anew under the old
    /// name. A log that is whole is left only when everything in it is counted. Nobody may serve
    /// meanwhile
    #[arg(long)]
    pub(crate) new_log: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; it is shown once
    Create(KeyCreateArgs),
    /// List all keys, without their secrets
    List(Output),
    /// Refuse a key from now on
    Revoke(KeyRevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct KeyCreateArgs {
    /// What people call it
    #[arg(long)]
    pub(crate) name: String,
    /// What it may do: ingest, backfill, usage:read, users, admin
    #[arg(long, required = true, value_delimiter = ',', value_parser = scope)]
    pub(crate) scope: Vec<Scope>,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|()| {
        let all: Vec<&str> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        format!("there are {}", all.join(", "))
    })
}

#[derive(Debug, Args)]
pub(crate) struct KeyRevokeArgs {
    /// The key's id: 16 hexadecimal digits
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Trace (CSV): TIMESTAMP,ContextTokens,GeneratedTokens
    pub(crate) file: PathBuf,
    /// How many users the rows are spread over
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) users: u32,
    /// Server [default: the one that runs on the data directory]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// File whose first line is an API key with scopes users,ingest (and backfill with
    /// --keep-times) [default: a temporary key, beside a local data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Events in one request; 1 sends single events
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// As fast as it goes, or as the trace went
    #[arg(long, value_enum, default_value_t = Speed::Max)]
    pub(crate) speed: Speed,
    /// Keep the trace's times, instead of moving them so that it ends now
    #[arg(long)]
    pub(crate) keep_times: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speed {
    Max,
    #[value(name = "1x")]
    One,
    #[value(name = "10x")]
    Ten,
}

#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// Rebuild statistics and summaries from the stored events where they differ. Stop the server
    /// before, in a cluster all aggregators: they would go on with the totals in their memory
    #[arg(long)]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List them in the order of the log
    List(Output),
    /// Append again those that today's program can read
    Replay(Output),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// List them, newest first
    List(AlertsListArgs),
    /// Send those again that were given up
    Retry(Output),
    /// Send the receiver of --alert-webhook a message; exit 0 only when it takes it
    Test(Output),
}

#[derive(Debug, Args)]
pub(crate) struct AlertsListArgs {
    /// Of this user only: their id
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<UserId>,
    /// Of one state only: waiting, sent, muted or given_up
    #[arg(long, value_name = "STATE", value_parser = delivery)]
    pub(crate) delivery: Option<DeliveryState>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn delivery(text: &str) -> Result<DeliveryState, String> {
    text.parse().map_err(|()| "must be waiting, sent, muted or given_up".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The archive (tar) to write; it must not exist yet
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether the settings can be used
    Check(Output),
    /// Show every setting with its value and where it came from
    Show(Output),
}

/// The whole command line, settings included.
pub(crate) fn program() -> clap::Command {
    let program = add_server_flags(add_shared_flags(Program::command()))
        .mut_subcommand("serve", add_server_flags)
        .mut_subcommand("doctor", add_server_flags)
        .mut_subcommand("config", |config| {
            config
                .mut_subcommand("check", add_server_flags)
                .mut_subcommand("show", add_server_flags)
        });
    with_variables(program)
}

/// Gives every flag its environment variable.
fn with_variables(command: clap::Command) -> clap::Command {
    let named = command.mut_args(|arg| match arg.get_long() {
        Some("help" | "version") | None => arg,
        Some(name) => {
            let variable = variable(name);
            arg.env(variable).hide_env_values(true).hide_env(true)
        }
    });
    named.mut_subcommands(with_variables)
}

/// The matches of the program, of its command, of that command's command …
pub(crate) fn levels(matches: &ArgMatches) -> Vec<&ArgMatches> {
    std::iter::successors(Some(matches), |level| level.subcommand().map(|(_, inner)| inner))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        super::program().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        fn check(command: &clap::Command) -> usize {
            let flags = command.get_arguments().filter_map(|arg| {
                let name = arg.get_long().filter(|name| !["help", "version"].contains(name))?;
                let variable = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
                assert_eq!(variable, super::variable(name));
                Some(())
            });
            flags.count() + command.get_subcommands().map(check).sum::<usize>()
        }
        assert!(check(&super::program()) > 40);
    }
}
