//! A user's month.

use std::collections::BTreeMap;

use axum::extract::State;
use edge::{Problem, Query, Success, ok};
use metering::accounts::UserId;
use metering::time::{Day, Period, Timestamp};
use metering::usage::{ModelName, MonthlyUsage, RequestType, TypeTotals};
use serde::{Deserialize, Serialize};

use super::{Me, Subject, subscription_of};
use crate::state::Api;

#[derive(Deserialize)]
pub(crate) struct MonthQuery {
    period: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TokensView {
    current_period: PeriodView,
    breakdown: BreakdownView,
    models: BTreeMap<ModelName, u64>,
    daily_usage: Vec<DayView>,
    usage: QuotaView,
    as_of: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct PeriodView {
    start_date: Timestamp,
    end_date: Timestamp,
    tokens_used: u64,
    tokens_limit: Option<u64>,
    percentage_used: Option<f64>,
}

#[derive(Debug, Serialize)]
struct BreakdownView {
    chat: TypeView,
    plagiarism: TypeView,
    prompt_generation: TypeView,
}

#[derive(Debug, Serialize)]
struct TypeView {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

#[derive(Debug, Serialize)]
struct DayView {
    date: Day,
    total_tokens: u64,
}

#[derive(Debug, Serialize)]
struct QuotaView {
    used: u64,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset_date: Timestamp,
}

/// `GET /api/tokens/me`
pub(crate) async fn tokens_of_me(
    State(api): State<Api>,
    Me(user): Me,
    Query(query): Query<MonthQuery>,
) -> Result<Success<TokensView>, Problem> {
    tokens(&api, user, &query).await
}

/// `GET /api/users/{id}/tokens`
pub(crate) async fn tokens_of_user(
    State(api): State<Api>,
    Subject(user): Subject,
    Query(query): Query<MonthQuery>,
) -> Result<Success<TokensView>, Problem> {
    tokens(&api, user, &query).await
}

async fn tokens(
    api: &Api,
    user: UserId,
    query: &MonthQuery,
) -> Result<Success<TokensView>, Problem> {
    let now = api.clock.now();
    let period = match query.period.as_deref() {
        Some(text) => text
            .parse()
            .map_err(|_| Problem::parameter("period", "must be a month such as 2026-10"))?,
        None => Period::of(now),
    };
    let limit = subscription_of(api, user).await?.terms(&api.plans, now).token_limit;
    let month = api.reports.monthly(user, period).await?;
    Ok(ok(TokensView::new(month, limit)))
}

impl TokensView {
    fn new(month: MonthlyUsage, limit: Option<u64>) -> Self {
        let MonthlyUsage { period, totals, breakdown, models, daily, as_of } = month;
        let used = totals.tokens;
        let of = |request_type: RequestType| {
            let TypeTotals { prompt_tokens, completion_tokens } = breakdown[request_type.index()];
            let total_tokens = prompt_tokens.saturating_add(completion_tokens);
            TypeView { prompt_tokens, completion_tokens, total_tokens }
        };
        Self {
            current_period: PeriodView {
                start_date: period.start(),
                end_date: period.last_second(),
                tokens_used: used,
                tokens_limit: limit,
                percentage_used: limit.map(|limit| percentage(used, limit)),
            },
            breakdown: BreakdownView {
                chat: of(RequestType::Chat),
                plagiarism: of(RequestType::Plagiarism),
                prompt_generation: of(RequestType::PromptGeneration),
            },
            models,
            daily_usage: daily
                .into_iter()
                .map(|(date, total_tokens)| DayView { date, total_tokens })
                .collect(),
            usage: QuotaView {
                used,
                limit,
                remaining: limit.map(|limit| limit.saturating_sub(used)),
                reset_date: period.end(),
            },
            as_of,
        }
    }
}

/// Percent, rounded to two decimals; of a limit of nothing everything is used.
fn percentage(used: u64, limit: u64) -> f64 {
    if limit == 0 {
        return 100.0;
    }
    let (used, limit) = (u128::from(used), u128::from(limit));
    let hundredths = (used * 10_000 + limit / 2) / limit;
    hundredths as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_has_two_decimals() {
        let written = |used, limit| serde_json::to_string(&percentage(used, limit)).unwrap();
        assert_eq!(written(15_000, 100_000), "15.0");
        assert_eq!(written(1, 3), "33.33");
        assert_eq!(written(2, 3), "66.67");
        assert_eq!(written(u64::MAX, u64::MAX), "100.0");
        assert_eq!(written(300, 100), "300.0");
        assert_eq!(written(0, 0), "100.0");
    }
}
