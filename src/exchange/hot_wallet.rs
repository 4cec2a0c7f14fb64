//! Hot wallets: the accounts from which the house (the owner of the exchange) pays for orders, one in fiat and one in
//! crypto. They cannot be overdrawn, and only operators can fund them.

use std::time::Duration;

use rust_decimal::prelude::ToPrimitive;
use tokio_util::sync::CancellationToken;

use super::{Exchange, sql};
use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::auth::{Caller, Scope};
use crate::error::{Error, Result};
use crate::idempotency_key::IdempotencyKey;
use crate::ids::UserId;
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read;
use crate::ledger::transfer::{Action, Leg, Posting, TransferKind};
use crate::telemetry::gauge_value;
use crate::wallet::from_post_error;

/// Interval at which the metrics of the hot wallets and of the crypto price are updated.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(15);

/// Balances of the two hot wallets of the house.
#[derive(Debug, Clone, Copy)]
pub struct HotWallets {
    pub fiat: Minor,
    pub crypto: Minor,
}

impl Exchange {
    /// Returns the balances of the hot wallets to a caller with the scope `wallet:read`.
    pub async fn hot_wallets(&self, caller: &Caller) -> Result<HotWallets> {
        caller.require_scope(Scope::WalletRead)?;
        self.read_hot_wallets().await
    }

    async fn read_hot_wallets(&self) -> Result<HotWallets> {
        let accounts = [self.pair.fiat, self.pair.crypto]
            .map(|currency| AccountId::system(SystemRole::Hot, currency));
        let mut db = self.db.snapshot("exchange.hot_wallets").await?;
        let balances = read::balances(&mut db, &accounts, read::END).await?;
        let at = |index: usize| balances.get(index).copied().unwrap_or_default();
        Ok(HotWallets { fiat: at(0), crypto: at(1) })
    }

    /// Deposits money from outside the ledger into a hot wallet. If `amount`, a decimal, is negative, withdraws money
    /// instead. Returns the new balance.
    pub async fn fund_hot_wallet(
        &self,
        currency: Currency,
        amount: &str,
        caller: &Caller,
        key: &IdempotencyKey,
        reason: &str,
    ) -> Result<Minor> {
        caller.require_scope(Scope::Admin)?;
        let amount = Minor::parse_signed(amount, currency)
            .map_err(|cause| Error::field("/amount", cause.to_string()))?;
        let hot = AccountId::system(SystemRole::Hot, currency);
        let world = AccountId::system(SystemRole::World, currency);
        let (kind, debit, credit) = match amount.0 {
            0 => return Err(Error::field("/amount", "must not be zero")),
            1.. => (TransferKind::Deposit, world, hot),
            _ => (TransferKind::Withdrawal, hot, world),
        };
        let content = [currency.code(), &amount.0.to_string()];
        let key = key.hashed(caller.name(), "hot wallet", &content);
        let moved = Minor(amount.0.checked_abs().unwrap_or(i64::MAX));
        let legs = vec![Leg::from(Action::Move { kind, debit, credit, amount: moved })];
        let posted = self.wallets.ledger().post(Posting { key, legs, ..Posting::default() }).await;
        let posted = posted.map_err(|error| from_post_error(&error, Some(currency)))?;
        if !posted.replayed {
            let mut db = self.db.acquire("exchange.fund_hot_wallet").await?;
            let (actor, subject) = (
                Actor { name: caller.name(), origin: None },
                format!("hot-wallet:{}", currency.code()),
            );
            let action = AuditAction::HotWalletFunded;
            let entry = audit_log::NewEntry {
                action,
                subject: Some(&subject),
                outcome: Outcome::Done,
                reason: Some(reason),
            };
            audit_log::append_entry(&mut db, &self.metrics, actor, &entry).await?;
        }
        Ok(posted.available(hot).unwrap_or_default())
    }

    /// Returns whether the user has the role `house`, which represents the owner of the hot wallets.
    pub(super) async fn is_house(&self, user: UserId) -> Result<bool> {
        let mut db = self.db.acquire("exchange.house").await?;
        Ok(sql::house(&mut db).await? == Some(user))
    }

    /// Updates the metrics of the hot wallets and of the crypto price until the process stops.
    pub async fn run_upkeep(self, stopping: CancellationToken) -> anyhow::Result<()> {
        loop {
            if let Err(error) = self.measure().await {
                tracing::debug!(
                    error.message = %error,
                    "could not read the hot wallets or the price for the metrics; retrying in {SAMPLE_INTERVAL:?}"
                );
            }
            if stopping.run_until_cancelled(tokio::time::sleep(SAMPLE_INTERVAL)).await.is_none() {
                return Ok(());
            }
        }
    }

    async fn measure(&self) -> Result<()> {
        let HotWallets { fiat, crypto } = self.read_hot_wallets().await?;
        for (currency, balance) in [(self.pair.fiat, fiat), (self.pair.crypto, crypto)] {
            let gauge = &self.metrics.wallet_exchange_hot_wallet_minor_units;
            gauge.with([currency.code()]).set(gauge_value(balance.0));
        }
        let price = self.exchanger.price().await?.to_f64();
        self.metrics.wallet_exchange_price.set(price.unwrap_or(f64::NAN));
        Ok(())
    }
}
