use std::collections::HashMap;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{ChangeKind, Subscription, SubscriptionChange, Subscriptions, UserId};
use metering::quota::PlanName;
use metering::time::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::super::values::{Id, Instant, instant, maybe_instant, user_id, word};
use super::changes::announce;
use super::{PostgresAccounts, lock_user};

#[async_trait]
impl Subscriptions for PostgresAccounts {
    async fn of_users(&self, users: &[UserId]) -> Result<Vec<Option<Subscription>>, Unavailable> {
        let ids: Vec<_> = users.iter().copied().map(Id).collect();
        let found = sqlx::query(FIND).bind(ids).try_map(subscription).fetch_all(self.pool());
        let found = self.within(found).await?;
        let of: HashMap<_, _> = found.into_iter().map(|found| (found.user_id, found)).collect();
        Ok(users.iter().map(|user| of.get(user).cloned()).collect())
    }

    async fn change(
        &self,
        user: UserId,
        change: &SubscriptionChange,
        now: Timestamp,
    ) -> Result<Option<Subscription>, Unavailable> {
        self.within(async {
            let mut transaction = self.pool().begin().await?;
            if !lock_user(&mut transaction, user).await? {
                return Ok(None);
            }
            let before = sqlx::query(FIND).bind(vec![Id(user)]).try_map(subscription);
            let Some(before) = before.fetch_optional(&mut *transaction).await? else {
                return Ok(None);
            };
            let Some(after) = before.changed(change, now) else { return Ok(Some(before)) };
            update(&mut transaction, &after).await?;
            announce(&mut transaction, &ChangeKind::Terms(user), now).await?;
            transaction.commit().await?;
            Ok(Some(after))
        })
        .await
    }
}

const FIND: &str = include_str!("sql/find_subscriptions.sql");

async fn update(transaction: &mut PgConnection, after: &Subscription) -> Result<(), sqlx::Error> {
    sqlx::query(include_str!("sql/update_subscription.sql"))
        .bind(Id(after.user_id))
        .bind(after.plan.as_str())
        .bind(after.status.as_str())
        .bind(Instant(after.start_date))
        .bind(after.expires_at.map(Instant))
        .bind(after.auto_renew)
        .bind(after.payment_method_id.as_deref())
        .bind(Instant(after.updated_at))
        .bind(i64::try_from(after.version).unwrap_or(i64::MAX))
        .execute(transaction)
        .await?;
    Ok(())
}

fn subscription(row: PgRow) -> Result<Subscription, sqlx::Error> {
    Ok(Subscription {
        id: row.try_get("id")?,
        user_id: user_id(&row, "user_id")?,
        plan: PlanName::new(row.try_get("plan")?),
        status: word(&row, "status")?,
        start_date: instant(&row, "start_date")?,
        expires_at: maybe_instant(&row, "expires_at")?,
        auto_renew: row.try_get("auto_renew")?,
        stripe_customer_id: row.try_get("stripe_customer_id")?,
        stripe_subscription_id: row.try_get("stripe_subscription_id")?,
        payment_method_id: row.try_get("payment_method_id")?,
        created_at: instant(&row, "created_at")?,
        updated_at: instant(&row, "updated_at")?,
        version: u64::try_from(row.try_get::<i64, _>("version")?).unwrap_or(0),
    })
}
