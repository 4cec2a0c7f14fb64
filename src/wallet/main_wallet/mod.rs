//! Main wallets, which `/api/wallet`, purchases and the exchange use. A player has at most one open main wallet in each
//! currency.
//!
//! The posting of the first deposit also opens the main wallet. If two first deposits run concurrently, the deposit
//! that commits first opens the wallet; the other is retried and uses that wallet. After a main wallet has been closed,
//! the next deposit opens a new wallet. Amounts are in minor units.

pub mod charge;
mod open;
pub mod payout;
mod sql;

use std::borrow::Cow;

use serde::Serialize;
use tracing::info;
use uuid::Uuid;

use super::deposit::deposit_to;
use super::{RequestMeta, Wallets, companion, from_post_error, nothing_posted};
use crate::auth::{Caller, Principal};
use crate::db::position;
use crate::error::{Error, Result};
use crate::idempotency_key::HashedKey;
use crate::ids::{PlayerId, TransferId, UserId, WalletId};
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, Posted, Posting, TransferKind};
use crate::ledger::{PostError, Refusal};
use crate::secret::digest;

pub use self::sql::OPENED_MAIN;

/// Refusal to open a main wallet: the player already has a main wallet, or a registration already uses the player id.
const OVERTAKEN: &str = "the player's main wallet exists";

/// Maximum number of attempts at an operation. An attempt fails if another request opens or closes the main wallet in
/// the meantime.
const ATTEMPTS_MAX: usize = 5;

/// Kind of player that a player id belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Player {
    /// A user with a password.
    User(UserId),
    /// A user without a password, treated as a guest.
    PasswordlessUser(UserId),
    Guest,
}

impl Player {
    /// Returns the id of a user, even of a user without a password; `None` for a guest.
    pub fn user_id(self) -> Option<UserId> {
        match self {
            Self::User(id) | Self::PasswordlessUser(id) => Some(id),
            Self::Guest => None,
        }
    }

    /// Whether the player is treated as a guest: the player is a guest, or a user without a password.
    pub fn is_guest(self) -> bool {
        !matches!(self, Self::User(_))
    }
}

/// A player, and the player's main wallet in a currency.
#[derive(Debug, Clone, Copy)]
pub struct MainWallet {
    pub player: Player,
    /// Id of the main wallet; `None` if the player has no open main wallet, for example, before the first deposit.
    pub wallet: Option<WalletId>,
}

/// Main wallet of a player after a deposit, a withdrawal or a transfer.
#[derive(Debug, Clone, Copy)]
pub struct MainPosting {
    pub wallet: WalletId,
    pub currency: Currency,
    pub balance: Minor,
    pub transfer: TransferId,
    pub replayed: bool,
}

/// Balance of a player's main wallet.
#[derive(Debug, Clone)]
pub struct MainBalance {
    /// Id of the main wallet; `None` if the player has no open main wallet, for example, before the first deposit.
    /// Without a main wallet, the balance is 0.
    pub wallet: Option<WalletId>,
    pub currency: Currency,
    pub balance: Minor,
    /// Position in the ledger at which the balance was read.
    pub position: String,
}

/// Row that [`OPENED_MAIN`] inserts when a main wallet is opened.
#[derive(Serialize)]
struct OpenedMain<'a> {
    id: WalletId,
    currency: &'a str,
    player: &'a PlayerId,
    app_user: Option<UserId>,
}

impl Wallets {
    /// Returns the currency that applies if a request names none.
    pub fn default_currency(&self) -> Currency {
        self.default_currency
    }

    /// Returns the balance of a player's main wallet.
    pub async fn main_balance(
        &self,
        caller: &Caller,
        player: &PlayerId,
        currency: Currency,
    ) -> Result<MainBalance> {
        let mut db = self.db.read("wallet.main_balance").await?;
        let found = sql::main_balance(&mut db, player, currency.code()).await?;
        drop(db);
        caller.require_read_player(found.as_ref().map(|found| found.main.player))?;
        let sql::FoundBalance { main, balance, position } = found.ok_or(Error::UserNotFound)?;
        position::note_read(position.clone());
        let wallet = main.wallet;
        Ok(MainBalance { wallet, currency, balance, position })
    }

    /// Moves money from the outside world into a player's main wallet, and opens the wallet first if the player has
    /// none.
    pub async fn deposit_main(
        &self,
        player: &PlayerId,
        currency: Currency,
        amount: Minor,
        meta: RequestMeta<'_>,
    ) -> Result<MainPosting> {
        for _ in 0..ATTEMPTS_MAX {
            let main = self.find_main_cached(player, currency).await?;
            let holder = main.map(|main| main.player);
            let creates_guest = meta.caller.require_fund_player(holder)?;
            if main.is_none() && !creates_guest {
                return Err(Error::UserNotFound);
            }
            let mut posting = meta.main_posting("deposit", player, currency, amount);
            let wallet = main.and_then(|main| main.wallet);
            let opens = wallet.is_none().then(|| holder.unwrap_or(Player::Guest));
            let account = match (wallet, opens) {
                (Some(wallet), _) => wallet.into(),
                (None, holder) => {
                    let holder = holder.unwrap_or(Player::Guest);
                    self.open_with(&mut posting, player, holder, currency).await?
                }
            };
            posting.legs.push(Leg::from(deposit_to(account, currency, amount)));
            match self.ledger.post(posting).await {
                Ok(posted) => return self.finish_main(&posted, opens, currency),
                Err(error) if is_overtaken(&error) => self.forget_main(player, currency),
                Err(error) => return Err(in_minor_units(&error)),
            }
        }
        Err(Error::Overloaded)
    }

    /// Moves money from a player's main wallet to the outside world.
    pub async fn withdraw_main(
        &self,
        player: &PlayerId,
        currency: Currency,
        amount: Minor,
        meta: RequestMeta<'_>,
    ) -> Result<MainPosting> {
        for _ in 0..ATTEMPTS_MAX {
            let main = self.find_main_cached(player, currency).await?;
            meta.caller.require_spend_player(main.map(|main| main.player))?;
            let main = main.ok_or(Error::UserNotFound)?;
            let mut posting = meta.main_posting("withdraw", player, currency, amount);
            let Some(debit) = main.wallet.map(AccountId::from) else {
                return self.earlier_posting(posting.key, currency, amount).await;
            };
            let credit = AccountId::system(SystemRole::World, currency);
            let kind = TransferKind::Withdrawal;
            posting.legs.push(Leg::from(Action::Move { kind, debit, credit, amount }));
            match self.ledger.post(posting).await {
                Ok(posted) => return self.finish_main(&posted, None, currency),
                Err(error) if is_overtaken(&error) => self.forget_main(player, currency),
                Err(error) => return Err(in_minor_units(&error)),
            }
        }
        Err(Error::Overloaded)
    }

    /// Moves money from the main wallet of a player to the main wallet of another player. First opens the receiving
    /// wallet if the receiving player has no open main wallet.
    ///
    /// Returns the balance of the sender.
    pub async fn transfer_main(
        &self,
        (from, to): (&PlayerId, &PlayerId),
        currency: Currency,
        amount: Minor,
        meta: RequestMeta<'_>,
    ) -> Result<MainPosting> {
        if from == to {
            return Err(Error::field("/to_user_id", "must differ from from_user_id"));
        }
        for _ in 0..ATTEMPTS_MAX {
            let sender = self.find_main_cached(from, currency).await?;
            meta.caller.require_spend_player(sender.map(|main| main.player))?;
            let sender = sender.ok_or(Error::UserNotFound)?;
            let receiver = self.find_main_cached(to, currency).await?;
            let receiver = receiver.filter(|main| meta.caller.may_pay(main.player));
            let receiver = receiver.ok_or(Error::UserNotFound)?;
            let content = [from.as_str(), to.as_str(), currency.code(), &amount.0.to_string()];
            let mut posting = meta.keyed("transfer", from, &content);
            let Some(debit) = sender.wallet.map(AccountId::from) else {
                return self.earlier_posting(posting.key, currency, amount).await;
            };
            let credit = match receiver.wallet {
                Some(wallet) => wallet.into(),
                None => self.open_with(&mut posting, to, receiver.player, currency).await?,
            };
            let kind = TransferKind::Transfer;
            posting.legs.push(Leg::from(Action::Move { kind, debit, credit, amount }));
            let opens = receiver.wallet.is_none().then_some(receiver.player);
            match self.ledger.post(posting).await {
                Ok(posted) => return self.finish_main(&posted, opens, currency),
                Err(error) if is_overtaken(&error) => {
                    self.forget_main(from, currency);
                    self.forget_main(to, currency);
                }
                Err(error) => return Err(in_minor_units(&error)),
            }
        }
        Err(Error::Overloaded)
    }

    /// Returns a player and the player's main wallet in this currency; `None` for an unknown player id.
    pub async fn find_main(
        &self,
        player: &PlayerId,
        currency: Currency,
    ) -> Result<Option<MainWallet>> {
        let mut db = self.db.acquire("wallet.find_main").await?;
        sql::find_main(&mut db, player, currency.code()).await
    }

    /// Finds a main wallet for a posting, from the cache if possible. If the wallet was closed after it was cached, the
    /// ledger refuses the posting.
    async fn find_main_cached(
        &self,
        player: &PlayerId,
        currency: Currency,
    ) -> Result<Option<MainWallet>> {
        let key = cache_key(player, currency);
        if let Some(main) = self.main_wallets.get(&key) {
            return Ok(Some(main));
        }
        // Boxed: a cache miss is rare, and its future would enlarge the future of every request.
        let main = Box::pin(self.find_main(player, currency)).await?;
        // A user without a password is not cached, because the user stops being treated as a guest as soon as a
        // password is set.
        if let Some(main) = main
            && main.wallet.is_some()
            && !matches!(main.player, Player::PasswordlessUser(_))
        {
            self.main_wallets.insert(key, main);
        }
        Ok(main)
    }

    fn forget_main(&self, player: &PlayerId, currency: Currency) {
        self.main_wallets.remove(&cache_key(player, currency));
    }

    /// Adds the opening of a main wallet to a posting, and returns the account of the new wallet.
    async fn open_with(
        &self,
        posting: &mut Posting,
        player: &PlayerId,
        holder: Player,
        currency: Currency,
    ) -> Result<AccountId> {
        let id = self.next_id().await?;
        let account = AccountId::from(id);
        posting.legs.push(Leg::from(Action::Open { account, currency }));
        let app_user = holder.user_id();
        let row = OpenedMain { id, currency: currency.code(), player, app_user };
        posting.companions.push(companion(&OPENED_MAIN, &row, OVERTAKEN)?);
        Ok(account)
    }

    /// Handles a payment by a player that has no open main wallet. The wallet may have been closed after an earlier
    /// payment, so a repeated request gets the result of the first request with the same idempotency key. Any other
    /// request fails with an "insufficient funds" error.
    async fn earlier_posting(
        &self,
        key: Option<HashedKey>,
        currency: Currency,
        amount: Minor,
    ) -> Result<MainPosting> {
        let earlier = match key {
            Some(key) => self.ledger.find(key).await.map_err(|error| in_minor_units(&error))?,
            None => None,
        };
        match earlier {
            Some(posted) => self.finish_main(&Posted { replayed: true, ..posted }, None, currency),
            None => Err(insufficient(Minor::ZERO, amount)),
        }
    }

    fn note_opened(&self, holder: Player) {
        let holder = if holder.user_id().is_some() { "user" } else { "guest" };
        self.metrics.wallet_main_wallets_opened_total.with([holder]).increment(1);
        info!(event = "wallet.main_opened", holder, "main wallet opened for a {holder}");
    }

    /// Returns the result of a deposit, withdrawal or transfer, taken from the last movement (leg) of the posting.
    /// `opens` is the player whose main wallet the posting opened, if any.
    fn finish_main(
        &self,
        posted: &Posted,
        opens: Option<Player>,
        currency: Currency,
    ) -> Result<MainPosting> {
        self.count_posted(posted, currency);
        if let Some(holder) = opens.filter(|_| !posted.replayed) {
            self.note_opened(holder);
        }
        let row = posted.rows.last().ok_or_else(nothing_posted)?;
        let is_deposit = row.kind == TransferKind::Deposit;
        let account = if is_deposit { row.credit } else { row.debit };
        let available = if is_deposit { row.credit_balance } else { row.debit_balance };
        let balance = available.checked_add(posted.held(account)).ok_or_else(nothing_posted)?;
        Ok(MainPosting {
            wallet: WalletId(account.0),
            currency,
            balance,
            transfer: TransferId(posted.last_seq),
            replayed: posted.replayed,
        })
    }
}

impl RequestMeta<'_> {
    /// Creates a posting on a main wallet, to which the caller adds the movements of money (legs).
    fn main_posting(
        &self,
        operation: &str,
        player: &PlayerId,
        currency: Currency,
        amount: Minor,
    ) -> Posting {
        self.keyed(operation, player, &[player.as_str(), currency.code(), &amount.0.to_string()])
    }

    /// Creates a posting, to which the caller adds the movements of money (legs). Its idempotency key does not depend
    /// on the wallet, because the wallet may be closed when the request is repeated.
    fn keyed(&self, operation: &str, player: &PlayerId, content: &[&str]) -> Posting {
        // Guests have no credential, so the player id separates the idempotency keys of different guests.
        let caller = match self.caller.principal() {
            Principal::Anonymous => Cow::Owned(format!("guest:{player}")),
            _ => Cow::Borrowed(self.caller.name()),
        };
        let key = self.key.hashed(&caller, &format!("main.{operation}"), content);
        let (legs, companions) = (Vec::new(), Vec::new());
        Posting { key, legs, companions, trace_id: Some(self.trace) }
    }
}

fn cache_key(player: &PlayerId, currency: Currency) -> Uuid {
    digest(&[player.as_str(), currency.code()])
}

/// Whether a posting failed because another request opened or closed the main wallet in the meantime.
fn is_overtaken(error: &PostError) -> bool {
    fn of_refusal(refusal: &Refusal) -> bool {
        match refusal {
            Refusal::InLeg { refusal, .. } => of_refusal(refusal),
            Refusal::AccountClosed(_) | Refusal::Companion(OVERTAKEN) => true,
            _ => false,
        }
    }
    matches!(error, PostError::Refused(refusal) if of_refusal(refusal))
}

/// Converts the error of a posting into an API error, with amounts in minor units.
fn in_minor_units(error: &PostError) -> Error {
    fn find_funds(refusal: &Refusal) -> Option<(Minor, Minor)> {
        match refusal {
            Refusal::InLeg { refusal, .. } => find_funds(refusal),
            Refusal::InsufficientFunds { available, required, .. } => Some((*available, *required)),
            _ => None,
        }
    }
    if let PostError::Refused(refusal) = error
        && let Some((available, required)) = find_funds(refusal)
    {
        return insufficient(available, required);
    }
    from_post_error(error, None)
}

fn insufficient(available: Minor, required: Minor) -> Error {
    Error::InsufficientFunds {
        available: available.0.to_string(),
        required: required.0.to_string(),
    }
}
