//! Where values come from: flags and environment (both through clap), then the file.

use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

use super::table::{Reach, SETTINGS, Setting, find};
use super::{Origin, Resolved, SettingError};

/// Adds the settings that every command takes, and `--config`.
pub(crate) fn add_shared_flags(command: clap::Command) -> clap::Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("File (TOML) with settings")
        .help_heading("Settings")
        .global(true);
    let shared = SETTINGS.iter().filter(|setting| setting.reach == Reach::All);
    command.arg(config).args(shared.map(|setting| flag(setting).global(true)))
}

/// Adds the settings of the server.
pub(crate) fn add_server_flags(command: clap::Command) -> clap::Command {
    command.args(SETTINGS.iter().filter(|setting| setting.reach == Reach::Server).map(flag))
}

/// No default is given to clap: the file would not be seen behind it.
fn flag(setting: &Setting) -> Arg {
    let mut help = setting.help.to_owned();
    if !setting.default.is_empty() {
        help = format!("{help} [default: {}]", setting.default);
    }
    if setting.list {
        help.push_str(" (repeatable)");
    }
    let action = if setting.list { ArgAction::Append } else { ArgAction::Set };
    Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value)
        .help(help)
        .help_heading("Settings")
        .action(action)
}

/// Every setting with its value and origin, and what is wrong with the file.
pub(super) fn resolve(levels: &[&ArgMatches]) -> (Vec<Resolved>, Vec<SettingError>) {
    let mut errors = Vec::new();
    let file = given(levels, "config").and_then(|(values, origin)| {
        let path = PathBuf::from(values.concat());
        let read = read_file(&path);
        read.map_err(|detail| {
            let value = Some(path.display().to_string());
            let found = Resolved { name: "config".to_owned(), value, origin };
            errors.push(SettingError { found, detail });
        })
        .ok()
        .map(|table| (path, table))
    });
    let (path, table) = file.unwrap_or_default();
    for (key, value) in &table {
        let known = find(&key.replace('_', "-")).is_some_and(|setting| setting.key() == *key);
        if !known {
            let (name, value) = (key.clone(), Some(texts(value).join(",")));
            let found = Resolved { name, value, origin: Origin::File(path.clone()) };
            errors.push(SettingError { found, detail: "there is no such setting".to_owned() });
        }
    }
    let found = SETTINGS.iter().map(|setting| {
        if let Some((values, origin)) = given(levels, setting.name) {
            return resolved(setting, values, origin);
        }
        if let Some(value) = table.get(&setting.key()) {
            return resolved(setting, texts(value), Origin::File(path.clone()));
        }
        resolved(setting, vec![setting.default.to_owned()], Origin::Default)
    });
    (found.collect(), errors)
}

fn resolved(setting: &Setting, values: Vec<String>, origin: Origin) -> Resolved {
    let text = values.join(",");
    // An empty default is none; an empty value that somebody wrote is a value, and mostly wrong.
    let none = text.is_empty() && (origin == Origin::Default || setting.default.is_empty());
    Resolved { name: setting.name.to_owned(), value: (!none).then_some(text), origin }
}

/// What flags or environment say: a flag of any level before the environment.
fn given(levels: &[&ArgMatches], name: &str) -> Option<(Vec<String>, Origin)> {
    let read = |source: ValueSource| {
        let mut inner_first = levels.iter().rev();
        inner_first.find_map(|matches| {
            let values = matches.try_get_many::<String>(name).ok().flatten()?;
            let found = matches.value_source(name) == Some(source);
            found.then(|| values.cloned().collect::<Vec<_>>())
        })
    };
    let variable = || Origin::Environment(super::variable(name));
    let flag = || Origin::Flag(name.to_owned());
    read(ValueSource::CommandLine)
        .map(|values| (values, flag()))
        .or_else(|| read(ValueSource::EnvVariable).map(|values| (values, variable())))
}

fn read_file(path: &Path) -> Result<toml::Table, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the file cannot be read: {error}"))?;
    text.parse::<toml::Table>().map_err(|error| format!("the file is not TOML: {error}"))
}

fn texts(value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::String(text) => vec![text.clone()],
        toml::Value::Array(items) => items.iter().flat_map(texts).collect(),
        other @ (toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Table(_)) => vec![other.to_string()],
    }
}
