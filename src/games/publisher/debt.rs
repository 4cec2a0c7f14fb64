//! Metrics of publisher debts. A refund can take more from a publisher's account than the account contains; later sales
//! pay off this debt.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::sql;
use crate::error::Result;
use crate::games::Games;
use crate::games::purchase::seller_account;
use crate::ledger::read;
use crate::telemetry::gauge_value;

/// Interval at which the debt metrics are updated.
const INTERVAL: Duration = Duration::from_secs(15);

/// Updates the publisher debt metrics until the process stops.
pub async fn run(games: Games, stopping: CancellationToken) -> anyhow::Result<()> {
    loop {
        if let Err(error) = games.measure_debts().await {
            tracing::warn!(
                error.message = %error,
                "could not read the debts of publishers for the metrics; retrying in {INTERVAL:?}"
            );
        }
        if stopping.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return Ok(());
        }
    }
}

impl Games {
    async fn measure_debts(&self) -> Result<()> {
        let mut db = self.db.snapshot("games.debts").await?;
        let mut currencies = Vec::new();
        let mut accounts = Vec::new();
        for (publisher, code) in sql::sellers(&mut db).await? {
            let Some(currency) = self.currencies().find(&code) else { continue };
            currencies.push(currency);
            accounts.push(seller_account(Some(publisher), currency)?);
        }
        let balances = read::balances(&mut db, &accounts, read::END).await?;
        let mut debts = BTreeMap::from([(self.default_currency(), 0_i64)]);
        for (currency, balance) in currencies.into_iter().zip(balances) {
            let debt = debts.entry(currency).or_default();
            *debt = debt.saturating_add(balance.0.min(0).saturating_neg());
        }
        for (currency, debt) in debts {
            let gauge = &self.metrics.wallet_store_publisher_debt_minor_units;
            gauge.with([currency.code()]).set(gauge_value(debt));
        }
        Ok(())
    }
}
