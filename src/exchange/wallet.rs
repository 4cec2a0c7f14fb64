//! A user's wallets on the exchange: the main wallets in the fiat currency and in the cryptocurrency.

use super::Exchange;
use super::terms::Pair;
use crate::auth::{Caller, Scope};
use crate::error::{Error, ExchangeRefusal, Result};
use crate::ids::{PlayerId, UserId};
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, Posting, TransferKind};
use crate::wallet::main_wallet::MainPosting;
use crate::wallet::{RequestMeta, from_post_error};

/// Balances of a user on the exchange.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeWallet {
    pub user: UserId,
    pub pair: Pair,
    pub fiat: Minor,
    pub crypto: Minor,
}

impl Exchange {
    /// Returns the balances of a user to that user, or to a caller with the scope `wallet:read`. For the user with the
    /// role `house`, returns the balances of the hot wallets.
    pub async fn wallet(&self, user: UserId, caller: &Caller) -> Result<ExchangeWallet> {
        caller.require_user_or_scope(user, Scope::WalletRead)?;
        if self.is_house(user).await? {
            let hot = self.hot_wallets(caller).await?;
            return Ok(ExchangeWallet {
                user,
                pair: self.pair,
                fiat: hot.fiat,
                crypto: hot.crypto,
            });
        }
        let player = PlayerId::from(user);
        let fiat = self.wallets.main_balance(caller, &player, self.pair.fiat).await?;
        let crypto = self.wallets.main_balance(caller, &player, self.pair.crypto).await?;
        if fiat.wallet.is_none() && crypto.wallet.is_none() {
            return Err(Error::NotFound("wallet"));
        }
        Ok(ExchangeWallet { user, pair: self.pair, fiat: fiat.balance, crypto: crypto.balance })
    }

    /// Opens the user's missing wallets in the currencies of the exchange. Returns an error if the user already has all
    /// of them.
    pub async fn open_wallets(&self, user: UserId, meta: RequestMeta<'_>) -> Result<()> {
        meta.caller.require_user_or_scope(user, Scope::WalletWrite)?;
        let currencies = [self.pair.fiat, self.pair.crypto];
        let opened = self.wallets.open_main(&PlayerId::from(user), &currencies, meta).await?;
        if opened { Ok(()) } else { Err(ExchangeRefusal::WalletsExist.into()) }
    }

    /// Deposits fiat money from outside the ledger into the wallet of a user.
    pub async fn deposit(
        &self,
        user: UserId,
        amount: Minor,
        meta: RequestMeta<'_>,
    ) -> Result<MainPosting> {
        meta.caller.require_user_or_scope(user, Scope::WalletWrite)?;
        self.wallets.deposit_main(&PlayerId::from(user), self.pair.fiat, amount, meta).await
    }
    /// Adds signed amounts to the balances of a user, in a single posting. Requires the scope `admin`.
    pub async fn adjust(
        &self,
        user: UserId,
        deltas: [(Currency, Minor); 2],
        meta: RequestMeta<'_>,
    ) -> Result<()> {
        meta.caller.require_scope(Scope::Admin)?;
        let player = PlayerId::from(user);
        let mut legs = Vec::new();
        let mut content = vec![user.to_string()];
        for (currency, delta) in deltas.into_iter().filter(|(_, delta)| *delta != Minor::ZERO) {
            let main =
                self.wallets.find_main(&player, currency).await?.ok_or(Error::UserNotFound)?;
            let wallet = main.wallet.map(AccountId::from).ok_or(Error::NotFound("wallet"))?;
            let world = AccountId::system(SystemRole::World, currency);
            let amount = Minor(delta.0.checked_abs().unwrap_or(i64::MAX));
            let (kind, debit, credit) = if delta > Minor::ZERO {
                (TransferKind::Deposit, world, wallet)
            } else {
                (TransferKind::Withdrawal, wallet, world)
            };
            legs.push(Leg::from(Action::Move { kind, debit, credit, amount }));
            content.push(format!("{} {}", currency.code(), delta.0));
        }
        let content: Vec<&str> = content.iter().map(String::as_str).collect();
        let key = meta.key.hashed(meta.caller.name(), "exchange.adjust", &content);
        let trace_id = Some(meta.trace);
        let posting = Posting { key, legs, trace_id, ..Posting::default() };
        let posted = self.wallets.ledger().post(posting).await;
        posted.map(drop).map_err(|error| from_post_error(&error, None))
    }
}
