//! `tokenmeter alerts`: what was raised, sent again, and whether the receiver hears.

use metering::usage::{AlertQuery, ListedAlert};
use serde_json::json;

use crate::commands::{AlertsCommand, AlertsListArgs, Output};
use crate::context::Context;
use crate::output::{Outcome, WrongUse, complain, say, say_json, say_table};
use crate::webhook::Webhook;

pub(crate) fn run(context: &Context, command: &AlertsCommand) -> anyhow::Result<Outcome> {
    match command {
        AlertsCommand::List(args) => list(context, args),
        AlertsCommand::Retry(output) => retry(context, output),
        AlertsCommand::Test(output) => test(context, output),
    }
}

fn list(context: &Context, args: &AlertsListArgs) -> anyhow::Result<Outcome> {
    let alerts = context.backend()?.alerts(context)?;
    let limit = usize::try_from(args.limit)?;
    // One more than is shown says whether there are more.
    let (user_id, state, rows_max) = (args.user, args.delivery, limit + 1);
    let query = AlertQuery { user_id, state, after: None, rows_max };
    let mut listed = context.block_on(alerts.alerts(&query))?;
    let has_more = listed.len() > limit;
    listed.truncate(limit);
    if args.output.json {
        say_json(&json!({"alerts": listed, "has_more": has_more}))?;
        return Ok(Outcome::Success);
    }
    let row = |listed: &ListedAlert| {
        let ListedAlert { alert, delivery } = listed;
        let used = format!("{} of {} {}", alert.used, alert.limit, alert.meter.as_str());
        vec![
            alert.raised_at.to_string(),
            alert.user_id.to_string(),
            alert.period.to_string(),
            alert.plan.to_string(),
            format!("{}%", alert.percent),
            used,
            delivery.state.as_str().to_owned(),
            delivery.last_error.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = listed.iter().map(row).collect();
    let header = ["raised", "user", "month", "plan", "part", "used", "delivery", "last error"];
    say_table(&header, &rows);
    if has_more {
        complain("There are more: ask for them with --limit.");
    }
    Ok(Outcome::Success)
}

fn retry(context: &Context, output: &Output) -> anyhow::Result<Outcome> {
    let alerts = context.backend()?.alerts(context)?;
    let retried = context.block_on(alerts.retry(context.clock.now()))?;
    if output.json {
        say_json(&json!({"retried": retried}))?;
    } else {
        say(format!("{retried} that were given up are sent again"));
    }
    Ok(Outcome::Success)
}

fn test(context: &Context, output: &Output) -> anyhow::Result<Outcome> {
    let Some(settings) = context.settings.webhook.clone() else {
        let missing = "no receiver is set: name one with --alert-webhook".to_owned();
        return Err(WrongUse(missing).into());
    };
    let webhook = Webhook::new(settings, context.clock.clone());
    let sent = webhook.post(&aggregator::Message::test(context.clock.now()));
    if output.json {
        say_json(&json!({"taken": sent.is_ok(), "error": sent.as_ref().err()}))?;
    } else {
        match &sent {
            Ok(()) => say("The receiver has taken the message."),
            Err(error) => complain(format!("The receiver has not taken the message: {error}")),
        }
    }
    Ok(Outcome::of(sent.is_ok()))
}
