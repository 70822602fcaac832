use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{ChangeKind, Subscription, SubscriptionChange, Subscriptions, UserId};
use metering::quota::PlanName;
use metering::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::changes::announce;
use super::{SqliteAccounts, instant, maybe_instant, user_id, word};

const FIND: &str = "SELECT subscriptions.* FROM subscriptions JOIN users ON users.id = user_id \
                    WHERE user_id = ?1 AND erased_at IS NULL";

#[async_trait]
impl Subscriptions for SqliteAccounts {
    async fn of_users(&self, users: &[UserId]) -> Result<Vec<Option<Subscription>>, Unavailable> {
        let users = users.to_vec();
        self.read(move |connection| {
            // One transaction, so that all are of the same moment.
            let snapshot = connection.unchecked_transaction()?;
            users.iter().map(|user| find(&snapshot, *user)).collect()
        })
        .await
    }

    async fn change(
        &self,
        user: UserId,
        change: &SubscriptionChange,
        now: Timestamp,
    ) -> Result<Option<Subscription>, Unavailable> {
        let change = change.clone();
        self.write(move |transaction| {
            let Some(before) = find(transaction, user)? else { return Ok(None) };
            let Some(after) = before.changed(&change, now) else { return Ok(Some(before)) };
            let version = i64::try_from(after.version).unwrap_or(i64::MAX);
            transaction.execute(
                include_str!("update_subscription.sql"),
                params![
                    user.as_bytes(),
                    after.plan.as_str(),
                    after.status.as_str(),
                    after.start_date.as_millis(),
                    after.expires_at.map(Timestamp::as_millis),
                    after.auto_renew,
                    after.payment_method_id,
                    now.as_millis(),
                    version,
                ],
            )?;
            announce(transaction, &ChangeKind::Terms(user), now)?;
            Ok(Some(after))
        })
        .await
    }
}

fn find(connection: &Connection, user: UserId) -> rusqlite::Result<Option<Subscription>> {
    connection.prepare_cached(FIND)?.query_row([user.as_bytes()], subscription).optional()
}

fn subscription(row: &Row<'_>) -> rusqlite::Result<Subscription> {
    Ok(Subscription {
        id: row.get("id")?,
        user_id: user_id(row, "user_id")?,
        plan: PlanName::new(&row.get::<_, String>("plan")?),
        status: word(row, "status")?,
        start_date: instant(row, "start_date")?,
        expires_at: maybe_instant(row, "expires_at")?,
        auto_renew: row.get("auto_renew")?,
        stripe_customer_id: row.get("stripe_customer_id")?,
        stripe_subscription_id: row.get("stripe_subscription_id")?,
        payment_method_id: row.get("payment_method_id")?,
        created_at: instant(row, "created_at")?,
        updated_at: instant(row, "updated_at")?,
        version: u64::try_from(row.get::<_, i64>("version")?).unwrap_or(0),
    })
}
