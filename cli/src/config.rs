//! `tokenmeter config check|show`.

use serde_json::json;

use crate::output::{Outcome, complain, say, say_json, say_table};
use crate::settings::{Resolved, SettingErrors};

/// Says whether the settings can be used.
pub(crate) fn check(errors: Option<&SettingErrors>, as_json: bool) -> anyhow::Result<Outcome> {
    if as_json {
        let errors = errors.iter().flat_map(|errors| &errors.0);
        let errors: Vec<String> = errors.map(ToString::to_string).collect();
        say_json(&json!({"ok": errors.is_empty(), "errors": errors}))?;
    } else {
        match errors {
            Some(errors) => complain(errors),
            None => say("The settings can be used."),
        }
    }
    Ok(Outcome::of(errors.is_none()))
}

/// Shows every setting, those that cannot be used too.
pub(crate) fn show(
    found: &[Resolved],
    errors: Option<&SettingErrors>,
    as_json: bool,
) -> anyhow::Result<Outcome> {
    if as_json {
        say_json(&json!({"settings": found}))?;
    } else {
        let rows: Vec<_> = found
            .iter()
            .map(|one| {
                let value = one.value.clone().unwrap_or_else(|| "-".to_owned());
                vec![one.name.clone(), value, one.origin.to_string()]
            })
            .collect();
        say_table(&["setting", "value", "from"], &rows);
    }
    if let Some(errors) = errors {
        complain(errors);
    }
    Ok(Outcome::of(errors.is_none()))
}
