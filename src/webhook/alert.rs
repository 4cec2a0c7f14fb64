//! Alerts: a line at a wallet, and one event each time that it is crossed.

use super::{Webhooks, sql};
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::idempotency::IdempotencyKey;
use crate::ids::{AlertId, WalletId};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;

/// Most alerts of one wallet.
const ALERTS_MAX: usize = 20;

/// An alert in the currency of its wallet.
pub(super) struct BalanceAlert {
    pub row: sql::AlertRow,
    pub currency: Currency,
    pub replayed: bool,
}

impl Webhooks {
    pub(super) async fn create_alert(
        &self,
        wallet: WalletId,
        direction: &str,
        line: &str,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<BalanceAlert> {
        let record = self.wallets.record(wallet).await?;
        caller.require_spend(&record)?;
        let currency = record.currency;
        let line = Minor::parse_balance(line, currency)
            .map_err(|cause| Error::field(format!("/{direction}"), cause.to_string()))?;
        let mut db = self.db.acquire("alert.create").await?;
        let content = [&wallet.to_string() as &str, direction, &line.0.to_string()];
        let key = key.hashed(caller.name(), "alert", &content);
        let known = match key {
            Some(key) => sql::alert_of_key(&mut db, key.hash).await?.is_some(),
            None => false,
        };
        if !known && sql::alerts_of(&mut db, &[wallet]).await?.len() >= ALERTS_MAX {
            let why = format!("limit of {ALERTS_MAX} alerts reached: delete one first");
            return Err(Error::field(format!("/{direction}"), why));
        }
        let created =
            sql::create_alert(&mut db, caller.name(), wallet, direction, line.0, key).await?;
        match (created, key) {
            (Some(row), _) => Ok(BalanceAlert { row, currency, replayed: false }),
            (None, Some(key)) => match sql::alert_of_key(&mut db, key.hash).await? {
                Some((row, content)) if content == Some(key.content) => {
                    Ok(BalanceAlert { row, currency, replayed: true })
                }
                _ => Err(Error::IdempotencyKeyReused),
            },
            (None, None) => Err(Error::Overloaded),
        }
    }

    pub(super) async fn list_alerts(
        &self,
        wallet: WalletId,
        caller: &Caller,
    ) -> Result<Vec<BalanceAlert>> {
        let currency = self.wallets.visible_record(caller, wallet).await?.currency;
        let mut db = self.db.acquire("alert.list").await?;
        let rows = sql::alerts_of(&mut db, &[wallet]).await?;
        Ok(rows.into_iter().map(|row| BalanceAlert { row, currency, replayed: false }).collect())
    }

    pub(super) async fn delete_alert(
        &self,
        wallet: WalletId,
        id: AlertId,
        caller: &Caller,
    ) -> Result<()> {
        caller.require_spend(&*self.wallets.record(wallet).await?)?;
        let mut db = self.db.acquire("alert.delete").await?;
        let gone = sql::delete_alert(&mut db, wallet, id).await?;
        if gone { Ok(()) } else { Err(Error::NotFound("alert")) }
    }
}
