//! Alerts: a line at a wallet, and one event each time that it is crossed.

use super::{Webhooks, sql};
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::idempotency::IdempotencyKey;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::wallet::WalletId;

/// Most alerts of one wallet.
const ALERTS_MAX: usize = 20;

/// An alert in the currency of its wallet.
pub(super) struct Alert {
    pub row: sql::Alert,
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
    ) -> Result<Alert> {
        let facts = self.wallets.facts(wallet).await?;
        caller.may_spend(&facts)?;
        let currency = facts.currency;
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
            let why = format!("is one too many: {ALERTS_MAX} alerts are the most");
            return Err(Error::field(format!("/{direction}"), why));
        }
        let created =
            sql::create_alert(&mut db, caller.name(), wallet, direction, line.0, key).await?;
        match (created, key) {
            (Some(row), _) => Ok(Alert { row, currency, replayed: false }),
            (None, Some(key)) => match sql::alert_of_key(&mut db, key.hash).await? {
                Some((row, content)) if content == Some(key.content) => {
                    Ok(Alert { row, currency, replayed: true })
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
    ) -> Result<Vec<Alert>> {
        let currency = self.wallets.seen_by(caller, wallet).await?.currency;
        let mut db = self.db.acquire("alert.list").await?;
        let rows = sql::alerts_of(&mut db, &[wallet]).await?;
        Ok(rows.into_iter().map(|row| Alert { row, currency, replayed: false }).collect())
    }

    pub(super) async fn delete_alert(
        &self,
        wallet: WalletId,
        id: i64,
        caller: &Caller,
    ) -> Result<()> {
        caller.may_spend(&*self.wallets.facts(wallet).await?)?;
        let mut db = self.db.acquire("alert.delete").await?;
        let gone = sql::delete_alert(&mut db, wallet, id).await?;
        if gone { Ok(()) } else { Err(Error::NotFound("alert")) }
    }
}
