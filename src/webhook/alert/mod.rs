//! Balance alerts: an event each time that the available balance of a wallet crosses a threshold.

pub(super) mod sql;

use std::str::FromStr;

use sqlx::Connection as _;
use time::OffsetDateTime;

use super::Webhooks;
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{AlertId, WalletId};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::BookRow;

/// Maximum number of alerts per wallet.
const ALERTS_MAX: usize = 20;

/// Direction in which the balance must cross the threshold to cause an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum AlertDirection {
    Below,
    Above,
}

impl AlertDirection {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Below => "below",
            Self::Above => "above",
        }
    }
}

impl FromStr for AlertDirection {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Below, Self::Above]
            .into_iter()
            .find(|direction| direction.name() == name)
            .ok_or_else(|| {
                Error::Internal(anyhow::anyhow!("unknown direction of an alert: {name}"))
            })
    }
}

/// An alert on the available balance of a wallet.
#[derive(Debug)]
pub struct Alert {
    pub id: AlertId,
    pub wallet: WalletId,
    /// Sequence number of the last transfer in the wallet's part (book) of the ledger when the alert was created. Only
    /// later transfers can trigger the alert.
    pub from_seq: i64,
    pub threshold: Minor,
    pub direction: AlertDirection,
    pub created_at: OffsetDateTime,
}

impl Alert {
    /// Whether this transfer moved the available balance across the threshold in the direction of the alert. A balance
    /// that equals the threshold has not crossed it.
    pub(super) fn is_crossed_by(&self, row: &BookRow) -> bool {
        let (before, after) = match self.wallet {
            _ if row.amount == 0 || row.seq <= self.from_seq => return false,
            WalletId(id) if id == row.credit => {
                (row.credit_balance - row.amount, row.credit_balance)
            }
            WalletId(id) if id == row.debit => (row.debit_balance + row.amount, row.debit_balance),
            _ => return false,
        };
        let Minor(threshold) = self.threshold;
        match self.direction {
            AlertDirection::Below => before >= threshold && after < threshold,
            AlertDirection::Above => before <= threshold && after > threshold,
        }
    }
}

/// An alert, and the currency of its wallet.
#[derive(Debug)]
pub struct BalanceAlert {
    pub alert: Alert,
    pub currency: Currency,
    pub replayed: bool,
}

impl Webhooks {
    /// Creates an alert. `threshold` is a decimal in the currency of the wallet.
    pub async fn create_alert(
        &self,
        wallet: WalletId,
        direction: AlertDirection,
        threshold: &str,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<BalanceAlert> {
        let record = self.wallets.record(wallet).await?;
        caller.require_spend(&record)?;
        let currency = record.currency;
        let pointer = format!("/{}", direction.name());
        let threshold = Minor::parse_balance(threshold, currency)
            .map_err(|cause| Error::field(pointer.clone(), cause.to_string()))?;
        let mut db = self.db.acquire("alert.create").await?;
        let content = [&wallet.to_string() as &str, direction.name(), &threshold.0.to_string()];
        let key = key.hashed(caller.name(), "alert", &content);
        let mut tx = db.begin().await?;
        sql::lock_wallet(&mut tx, wallet).await?;
        if let Some(key) = key
            && let Some((alert, content)) = sql::find_alert_by_key(&mut tx, key.hash).await?
        {
            key.require_same_content(content)?;
            return Ok(BalanceAlert { alert, currency, replayed: true });
        }
        if sql::list_alerts(&mut tx, &[wallet]).await?.len() >= ALERTS_MAX {
            self.metrics.wallet_webhook_refusals_total.with(["alerts"]).increment(1);
            let why = format!("limit of {ALERTS_MAX} alerts reached: delete one first");
            return Err(Error::field(pointer, why));
        }
        // A concurrent request with the same key, but for another wallet, holds another lock and may have used the key
        // already.
        let created =
            sql::create_alert(&mut tx, caller.name(), wallet, direction, threshold, key).await?;
        let alert = created.ok_or(Error::IdempotencyKeyReused)?;
        tx.commit().await?;
        Ok(BalanceAlert { alert, currency, replayed: false })
    }

    /// Returns the alerts of a wallet, oldest first.
    pub async fn list_alerts(
        &self,
        wallet: WalletId,
        caller: &Caller,
    ) -> Result<Vec<BalanceAlert>> {
        let currency = self.wallets.visible_record(caller, wallet).await?.currency;
        let mut db = self.db.snapshot("alert.list").await?;
        let alerts = sql::list_alerts(&mut db, &[wallet]).await?.into_iter();
        Ok(alerts.map(|alert| BalanceAlert { alert, currency, replayed: false }).collect())
    }

    pub async fn delete_alert(&self, wallet: WalletId, id: AlertId, caller: &Caller) -> Result<()> {
        caller.require_spend(&*self.wallets.record(wallet).await?)?;
        let mut db = self.db.acquire("alert.delete").await?;
        let existed = sql::delete_alert(&mut db, wallet, id).await?;
        if existed { Ok(()) } else { Err(Error::NotFound("alert")) }
    }
}
