//! Wallets: accounts of the ledger with an owner's name on them, and what one does with them.

pub mod http;
pub mod read;
mod sql;

use std::sync::Arc;

use moka::sync::Cache;
use serde::Serialize;
use uuid::Uuid;

use crate::db::Database;
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::idempotency::IdempotencyKey;
use crate::ledger::account::{AccountId, Role};
use crate::ledger::companion::Companion;
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Kind, Leg, Posted, Posting};
use crate::ledger::{Ledger, PostError, Refusal};

pub use sql::OPENED;

/// Most wallets whose unchanging facts are kept in memory, some 100 bytes each.
const KNOWN_MAX: u64 = 200_000;

/// The book calls accounts numbers; people call wallets the same numbers.
pub type WalletId = i64;

/// What never changes about a wallet.
#[derive(Debug)]
pub struct Facts {
    pub currency: Currency,
    pub owner: String,
}

/// A wallet as it is after something was done with it.
#[derive(Debug, Clone)]
pub struct Wallet {
    pub id: WalletId,
    pub facts: Arc<Facts>,
    pub balance: Minor,
    pub replayed: bool,
}

/// Everything one can do with wallets. A cheap handle.
#[derive(Clone)]
pub struct Wallets {
    ledger: Ledger,
    db: Database,
    currencies: Arc<Currencies>,
    known: Cache<WalletId, Arc<Facts>>,
}

/// Who asks, for the book: the idempotency key and the trace.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub caller: &'a Caller,
    pub key: &'a IdempotencyKey,
    pub trace: Uuid,
}

impl Asked<'_> {
    /// `content` is the request as it was understood: `100` and `"100.00"` are the same.
    fn posting(&self, operation: &str, content: &[&str], legs: Vec<Leg>) -> Posting {
        let key = self.key.hashed(self.caller.name(), operation, content);
        Posting { key, legs, companions: Vec::new(), trace_id: Some(self.trace) }
    }
}

#[derive(Serialize)]
struct Opened<'a> {
    id: WalletId,
    currency: &'a str,
    owner: &'a str,
}

impl Wallets {
    pub fn new(ledger: Ledger, db: Database, currencies: Currencies) -> Self {
        Self { ledger, db, currencies: Arc::new(currencies), known: Cache::new(KNOWN_MAX) }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn currencies(&self) -> &Currencies {
        &self.currencies
    }

    /// Opens a wallet, with a first deposit if there is one: both or neither.
    pub async fn open(
        &self,
        owner: &str,
        currency: Currency,
        initial: Option<Minor>,
        asked: Asked<'_>,
    ) -> Result<Wallet> {
        let id = sql::next_id(&mut *self.db.acquire("wallet.next_id").await?).await?;
        let account = AccountId(id);
        let mut legs = vec![Leg::from(Action::Open { account, currency })];
        legs.extend(initial.map(|amount| Leg::from(deposit_of(account, currency, amount))));
        let row = Opened { id, currency: currency.code(), owner };
        let companion = Companion::new(&OPENED, &row, "the wallet exists")
            .map_err(|cause| Error::Internal(cause.into()))?;
        let amount = initial.map_or(0, |minor| minor.0).to_string();
        let mut posting = asked.posting("open", &[owner, currency.code(), &amount], legs);
        posting.companions.push(companion);
        let posted = self.ledger.post(posting).await.map_err(|error| refused(&error, None))?;
        // A replay opened another id, the first time.
        let first = posted.rows.first().ok_or_else(nothing_posted)?;
        self.after(first.debit.0, &posted).await
    }

    /// Money from outside.
    pub async fn deposit(&self, id: WalletId, amount: &str, asked: Asked<'_>) -> Result<Wallet> {
        let facts = self.facts(id).await?;
        let amount = amount_of(amount, facts.currency)?;
        let action = deposit_of(AccountId(id), facts.currency, amount);
        self.move_money("deposit", id, amount, action, &facts, asked).await
    }

    /// Money to outside.
    pub async fn withdraw(&self, id: WalletId, amount: &str, asked: Asked<'_>) -> Result<Wallet> {
        let facts = self.facts(id).await?;
        let amount = amount_of(amount, facts.currency)?;
        let world = AccountId::system(Role::World, facts.currency);
        let action =
            Action::Move { kind: Kind::Withdrawal, debit: AccountId(id), credit: world, amount };
        self.move_money("withdraw", id, amount, action, &facts, asked).await
    }

    /// What never changes about a wallet; 404 when there is none.
    pub async fn facts(&self, id: WalletId) -> Result<Arc<Facts>> {
        if let Some(facts) = self.known.get(&id) {
            return Ok(facts);
        }
        let found = sql::find(&mut *self.db.acquire("wallet.find").await?, id).await?;
        let (code, owner) = found.ok_or(Error::NotFound("wallet"))?;
        let facts = self.facts_of(&code, owner)?;
        self.known.insert(id, Arc::clone(&facts));
        Ok(facts)
    }

    fn facts_of(&self, code: &str, owner: String) -> Result<Arc<Facts>> {
        let currency = self.currencies.find(code).ok_or_else(|| {
            Error::Internal(anyhow::anyhow!("the currency {code} is not among --currency any more"))
        })?;
        Ok(Arc::new(Facts { currency, owner }))
    }

    async fn move_money(
        &self,
        operation: &str,
        id: WalletId,
        amount: Minor,
        action: Action,
        facts: &Arc<Facts>,
        asked: Asked<'_>,
    ) -> Result<Wallet> {
        let content = [&id.to_string() as &str, &amount.0.to_string()];
        let posting = asked.posting(operation, &content, vec![Leg::from(action)]);
        let posted = self.ledger.post(posting).await;
        let posted = posted.map_err(|error| refused(&error, Some(facts.currency)))?;
        Ok(Wallet {
            id,
            facts: Arc::clone(facts),
            balance: balance_after(id, &posted)?,
            replayed: posted.replayed,
        })
    }

    async fn after(&self, id: WalletId, posted: &Posted) -> Result<Wallet> {
        let facts = self.facts(id).await?;
        Ok(Wallet { id, facts, balance: balance_after(id, posted)?, replayed: posted.replayed })
    }
}

fn deposit_of(account: AccountId, currency: Currency, amount: Minor) -> Action {
    let debit = AccountId::system(Role::World, currency);
    Action::Move { kind: Kind::Deposit, debit, credit: account, amount }
}

fn amount_of(text: &str, currency: Currency) -> Result<Minor> {
    Minor::parse_amount(text, currency).map_err(|cause| Error::field("/amount", cause.to_string()))
}

/// The balance on the last row that touched the account.
fn balance_after(id: WalletId, posted: &Posted) -> Result<Minor> {
    let touched = posted.rows.iter().rev().find_map(|row| match AccountId(id) {
        account if account == row.credit => Some(row.credit_balance),
        account if account == row.debit => Some(row.debit_balance),
        _ => None,
    });
    touched.ok_or_else(nothing_posted)
}

fn nothing_posted() -> Error {
    Error::Internal(anyhow::anyhow!("a posting came back without the rows it was made of"))
}

/// What the ledger's word means to whoever asked.
fn refused(error: &PostError, currency: Option<Currency>) -> Error {
    let refusal = match error {
        PostError::Refused(refusal) => refusal,
        PostError::Overloaded => return Error::Overloaded,
        PostError::Unavailable => {
            return Error::DatabaseUnavailable(anyhow::anyhow!("the ledger cannot reach it"));
        }
        PostError::Unknown => return Error::OutcomeUnknown,
        PostError::Internal => {
            return Error::Internal(anyhow::anyhow!("the ledger failed; see its log"));
        }
    };
    match refusal {
        Refusal::NoSuchAccount(_) => Error::NotFound("wallet"),
        Refusal::AccountClosed(_) => Error::WalletClosed,
        Refusal::AccountFrozen(_) => Error::WalletFrozen,
        Refusal::AccountNotEmpty(_) => Error::WalletNotEmpty,
        Refusal::InsufficientFunds { available, required, .. } => {
            let write = |minor: &Minor| currency.map(|currency| minor.exact(currency).to_string());
            Error::InsufficientFunds {
                available: write(available).unwrap_or_default(),
                required: write(required).unwrap_or_default(),
            }
        }
        Refusal::BalanceTooLarge(_) | Refusal::AmountTooLarge => Error::AmountTooLarge,
        Refusal::CurrencyMismatch(..) => Error::CurrencyMismatch,
        Refusal::KeyReused => Error::IdempotencyKeyReused,
        Refusal::InLeg { refusal, .. } => {
            refused(&PostError::Refused((**refusal).clone()), currency)
        }
        Refusal::AccountExists(_)
        | Refusal::AccountNotFrozen(_)
        | Refusal::Companion(_)
        | Refusal::Malformed(_) => {
            Error::Internal(anyhow::anyhow!("unexpected refusal: {refusal:?}"))
        }
    }
}
