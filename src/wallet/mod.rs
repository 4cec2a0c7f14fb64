//! Wallets: accounts of the ledger with an owner's name on them, and what one does with them.

pub mod access;
pub mod change;
pub mod hold;
pub mod http;
pub mod probe;
pub mod read;
pub mod refund;
mod refused;
mod sql;
pub mod transfer;
mod turns;

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::db::Database;
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::idempotency::IdempotencyKey;
use crate::ledger::Ledger;
use crate::ledger::account::{AccountId, Role};
use crate::ledger::companion::{Companion, CompanionKind};
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Kind, Leg, Posted, Posting};
use crate::recent::Recent;
use crate::telemetry::Metrics;

use self::hold::Hold;
use self::refused::refused;
use self::turns::Turns;

/// The book of all wallets.
const BOOK: i32 = 1;

/// Everything of wallets that moves with their money.
pub static COMPANIONS: [&CompanionKind; 6] = [
    &sql::OPENED,
    &change::CHANGED,
    &change::CLOSED,
    &hold::PLACED,
    &hold::MOVED,
    &refund::REFUNDED,
];

/// Most wallets whose unchanging facts are kept in memory, some 100 bytes each.
const KNOWN_MAX: usize = 200_000;

/// Most open holds that are kept in memory as they were after their last change, some 200 bytes each.
const OPEN_HOLDS_MAX: usize = 50_000;

/// The book calls accounts numbers; people call wallets the same numbers.
pub type WalletId = i64;

/// What never changes about a wallet.
#[derive(Debug)]
pub struct Facts {
    pub currency: Currency,
    /// A label.
    pub owner: String,
    /// The user whom it belongs to.
    pub user: Option<i64>,
}

/// A wallet as it is after something was done with it.
#[derive(Debug, Clone)]
pub struct Wallet {
    pub id: WalletId,
    pub facts: Arc<Facts>,
    /// What can be spent.
    pub available: Minor,
    /// What is set aside by holds.
    pub held: Minor,
    pub replayed: bool,
}

impl Wallet {
    /// What the owner has, held or not.
    pub fn balance(&self) -> Minor {
        self.available.checked_add(self.held).expect("both are below 2^53")
    }
}

/// Everything one can do with wallets. A cheap handle.
#[derive(Clone)]
pub struct Wallets {
    ledger: Ledger,
    db: Database,
    currencies: Arc<Currencies>,
    known: Arc<Recent<WalletId, Arc<Facts>>>,
    open_holds: Arc<Recent<i64, Hold>>,
    metrics: Arc<Metrics>,
    turns: Arc<Turns>,
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
    app_user: Option<i64>,
}

impl Wallets {
    pub fn new(
        ledger: Ledger,
        db: Database,
        currencies: Currencies,
        metrics: Arc<Metrics>,
    ) -> Self {
        let currencies = Arc::new(currencies);
        let (known, turns) = (Arc::new(Recent::new(KNOWN_MAX)), Arc::new(Turns::new()));
        let open_holds = Arc::new(Recent::new(OPEN_HOLDS_MAX));
        Self { ledger, db, currencies, known, open_holds, metrics, turns }
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
        let user = asked.caller.opens_for(initial)?;
        let id = sql::next_id(&mut *self.db.acquire("wallet.next_id").await?).await?;
        let account = AccountId(id);
        let mut legs = vec![Leg::from(Action::Open { account, currency })];
        legs.extend(initial.map(|amount| Leg::from(deposit_of(account, currency, amount))));
        let row = Opened { id, currency: currency.code(), owner, app_user: user };
        let companion = companion(&sql::OPENED, &row, "the wallet exists")?;
        let amount = initial.map_or(0, |minor| minor.0).to_string();
        let mut posting = asked.posting("open", &[owner, currency.code(), &amount], legs);
        posting.companions.push(companion);
        let posted = self.ledger.post(posting).await.map_err(|error| refused(&error, None))?;
        // A replay opened another id, the first time.
        let id = posted.rows.first().ok_or_else(nothing_posted)?.debit.0;
        let facts = self.facts(id).await?;
        self.count(&posted, currency);
        after(id, facts, &posted)
    }

    /// Money from outside.
    pub async fn deposit(&self, id: WalletId, amount: &str, asked: Asked<'_>) -> Result<Wallet> {
        let facts = self.facts(id).await?;
        asked.caller.may_fund(&facts)?;
        let amount = amount_of(amount, facts.currency)?;
        let action = deposit_of(AccountId(id), facts.currency, amount);
        self.move_money("deposit", id, amount, action, &facts, asked).await
    }

    /// Money to outside.
    pub async fn withdraw(&self, id: WalletId, amount: &str, asked: Asked<'_>) -> Result<Wallet> {
        let facts = self.facts(id).await?;
        asked.caller.may_spend(&facts)?;
        let amount = amount_of(amount, facts.currency)?;
        let world = AccountId::system(Role::World, facts.currency);
        let action =
            Action::Move { kind: Kind::Withdrawal, debit: AccountId(id), credit: world, amount };
        self.move_money("withdraw", id, amount, action, &facts, asked).await
    }

    /// What never changes about a wallet that this caller may look at.
    pub async fn seen_by(&self, caller: &Caller, id: WalletId) -> Result<Arc<Facts>> {
        let facts = self.facts(id).await?;
        caller.may_see(&facts)?;
        Ok(facts)
    }

    /// What never changes about a wallet; 404 when there is none.
    pub async fn facts(&self, id: WalletId) -> Result<Arc<Facts>> {
        if let Some(facts) = self.known.get(&id) {
            return Ok(facts);
        }
        let found = sql::find(&mut *self.db.acquire("wallet.find").await?, id).await?;
        let sql::Listed { currency, owner, app_user, .. } =
            found.ok_or(Error::NotFound("wallet"))?;
        let facts = self.facts_of(&currency, owner, app_user)?;
        self.known.insert(id, Arc::clone(&facts));
        Ok(facts)
    }

    /// The same of many at once; those that do not exist are left out.
    pub async fn facts_of_many(
        &self,
        ids: impl Iterator<Item = WalletId>,
    ) -> Result<HashMap<WalletId, Arc<Facts>>> {
        let mut all = HashMap::new();
        let mut unknown = Vec::new();
        for id in ids {
            match self.known.get(&id) {
                Some(facts) => drop(all.insert(id, facts)),
                None => unknown.push(id),
            }
        }
        if !unknown.is_empty() {
            let mut db = self.db.acquire("wallet.find_many").await?;
            for found in sql::find_many(&mut db, &unknown).await? {
                let facts = self.facts_of(&found.currency, found.owner, found.app_user)?;
                self.known.insert(found.id, Arc::clone(&facts));
                all.insert(found.id, facts);
            }
        }
        Ok(all)
    }

    fn facts_of(&self, code: &str, owner: String, user: Option<i64>) -> Result<Arc<Facts>> {
        let currency = self.currencies.find(code).ok_or_else(|| {
            Error::Internal(anyhow::anyhow!("the currency {code} is not among --currency any more"))
        })?;
        Ok(Arc::new(Facts { currency, owner, user }))
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
        self.count(&posted, facts.currency);
        after(id, Arc::clone(facts), &posted)
    }

    /// Notes how much was moved.
    fn count(&self, posted: &Posted, currency: Currency) {
        for row in posted.rows.iter().filter(|_| !posted.replayed) {
            self.count_moved(currency, row.kind, row.amount);
        }
    }

    fn count_moved(&self, currency: Currency, kind: Kind, amount: Minor) {
        if amount > Minor::ZERO {
            let moved = &self.metrics.wallet_amount_moved_minor_units_total;
            let amount = u64::try_from(amount.0).unwrap_or_default();
            moved.with([currency.code(), kind.name()]).increment(amount);
        }
    }
}

/// A wallet after a posting that touched it.
fn after(id: WalletId, facts: Arc<Facts>, posted: &Posted) -> Result<Wallet> {
    let available = posted.available(AccountId(id)).ok_or_else(nothing_posted)?;
    let held = posted.held(AccountId(id));
    Ok(Wallet { id, facts, available, held, replayed: posted.replayed })
}

fn companion(
    kind: &'static CompanionKind,
    row: &impl Serialize,
    refusal: &'static str,
) -> Result<Companion> {
    Companion::new(kind, row, refusal).map_err(|cause| Error::Internal(cause.into()))
}

fn deposit_of(account: AccountId, currency: Currency, amount: Minor) -> Action {
    let debit = AccountId::system(Role::World, currency);
    Action::Move { kind: Kind::Deposit, debit, credit: account, amount }
}

fn amount_of(text: &str, currency: Currency) -> Result<Minor> {
    Minor::parse_amount(text, currency).map_err(|cause| Error::field("/amount", cause.to_string()))
}

fn nothing_posted() -> Error {
    Error::Internal(anyhow::anyhow!("a posting came back without the rows it was made of"))
}
