//! `tokenmeter user`: makes and lists users beside the server.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, bail};
use api::accounts::{Passwords, UserRequest, create_user};
use metering::accounts::{CreateError, User, UserQuery};
use serde_json::{Value, json};

use crate::commands::{Output, UserCommand, UserCreateArgs};
use crate::context::Context;
use crate::output::{Outcome, WrongUse, complain, say, say_json, say_table};

/// Users in one read. A list of millions must not be in memory at once.
const PAGE_ROWS: usize = 1000;

/// No password has more bytes (256 characters): the rest of a wrong file is not read.
const PASSWORD_BYTES_MAX: u64 = 4096;

pub(crate) fn run(context: &Context, command: &UserCommand) -> anyhow::Result<Outcome> {
    match command {
        UserCommand::Create(args) => create(context, args),
        UserCommand::List(output) => list(context, output),
    }
}

fn create(context: &Context, args: &UserCreateArgs) -> anyhow::Result<Outcome> {
    let password = args.password_file.as_deref().map(read_password).transpose()?;
    let without_password = password.is_none();
    let request = UserRequest {
        name: Some(args.name.clone()),
        email: Some(args.email.clone()),
        password,
        role: args.role.into(),
        plan: Some(args.plan.clone()),
        ..UserRequest::default()
    };
    let checked = request.check(&context.settings.plans).map_err(|wrong| {
        WrongUse(format!("--{}: {}", wrong.field.replace('_', "-"), wrong.detail))
    })?;
    let plan = checked.plan().clone();
    let accounts = context.accounts()?;
    let passwords = Passwords::new(1);
    let made = context.block_on(create_user(
        &*accounts.accounts,
        &passwords,
        checked,
        context.clock.now(),
    ));
    let user = match made {
        Ok(user) => user,
        Err(CreateError::EmailTaken) => {
            complain(format!("Somebody has the e-mail address {}.", args.email));
            return Ok(Outcome::Negative);
        }
        Err(error) => return Err(error).context("the user cannot be made"),
    };
    if args.output.json {
        say_json(&shown(&user, Some(plan.as_str())))?;
    } else {
        say(format!("{} {} on plan {plan}: {}", user.role.as_str(), args.email, user.id));
        if without_password {
            complain("Without a password they cannot log in (--password-file).");
        }
    }
    Ok(Outcome::Success)
}

/// The first line of a file, or of standard input.
fn read_password(path: &Path) -> anyhow::Result<String> {
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let file = std::fs::File::open(path);
        Box::new(file.with_context(|| format!("--password-file: {}", path.display()))?)
    };
    let mut line = String::new();
    BufReader::new(source.take(PASSWORD_BYTES_MAX))
        .read_line(&mut line)
        .context("--password-file: the password cannot be read")?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() {
        bail!(WrongUse("--password-file: its first line is empty".to_owned()));
    }
    Ok(password)
}

fn shown(user: &User, plan: Option<&str>) -> Value {
    json!({
        "id": user.id,
        "name": user.name,
        "email": user.email,
        "external_id": user.external_id,
        "role": user.role,
        "locked": user.locked,
        "plan": plan,
        "created_at": user.created_at,
    })
}

fn list(context: &Context, output: &Output) -> anyhow::Result<Outcome> {
    let accounts = context.accounts()?;
    let mut users: Vec<(User, Option<String>)> = Vec::new();
    loop {
        let after = users.last().map(|(user, _)| user.id);
        let query = UserQuery { search: None, after, rows_max: PAGE_ROWS };
        let page = context.block_on(accounts.accounts.list(&query))?;
        let ids: Vec<_> = page.users.iter().map(|user| user.id).collect();
        let plans = context.block_on(accounts.subscriptions.of_users(&ids))?.into_iter();
        let plans = plans.map(|found| found.map(|subscription| subscription.plan.to_string()));
        users.extend(page.users.into_iter().zip(plans));
        if !page.has_more {
            break;
        }
    }
    if output.json {
        let users: Vec<_> = users.iter().map(|(user, plan)| shown(user, plan.as_deref())).collect();
        say_json(&json!({"users": users}))?;
        return Ok(Outcome::Success);
    }
    let row = |(user, plan): &(User, Option<String>)| {
        let name = user.email.as_ref().map(|email| email.as_str().to_owned());
        let name = name.or_else(|| user.external_id.clone()).unwrap_or_else(|| "-".to_owned());
        let role = if user.locked { "locked" } else { user.role.as_str() };
        let plan = plan.clone().unwrap_or_else(|| "-".to_owned());
        vec![user.id.to_string(), name, role.to_owned(), plan, user.created_at.to_string()]
    };
    let rows: Vec<_> = users.iter().map(row).collect();
    say_table(&["id", "e-mail or external id", "role", "plan", "created"], &rows);
    Ok(Outcome::Success)
}
