//! Wallets: ledger accounts that have an owner, and the operations on them.
//!
//! Every operation takes the caller and begins with a permission check (`require_...`, in [`access`]), because HTTP
//! handlers, gRPC services and other modules all call the same operations.

pub mod access;
mod canary;
mod deposit;
mod error;
pub mod history;
pub mod hold;
pub mod http;
pub mod main_wallet;
pub mod read;
mod records;
pub mod refund;
mod sql;
pub mod transfer;
pub mod update;

use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;
use uuid::Uuid;

use crate::auth::Caller;
use crate::cache::Cache;
use crate::db::Database;
use crate::error::{Error, Result};
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{HoldId, TransferId, UserId, WalletId};
use crate::ledger::Ledger;
use crate::ledger::account::AccountId;
use crate::ledger::companion::{Companion, CompanionKind};
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, Posted, Posting, TransferKind};
use crate::striped_lock::StripedLock;
use crate::telemetry::Metrics;

use self::deposit::deposit_to;
pub(crate) use self::error::from_post_error;
use self::hold::Hold;
use self::main_wallet::MainWallet;

pub use self::records::WalletRecord;

/// Companions of this module: SQL statements that commit in the same transaction as a posting.
pub static COMPANIONS: [&CompanionKind; 9] = [
    &sql::OPENED,
    &main_wallet::OPENED_MAIN,
    &update::CHANGED,
    &update::RECORDED,
    &update::CLOSED,
    &hold::PLACED,
    &hold::MOVED,
    &refund::REFUNDED,
    &transfer::BATCH_CLAIMED,
];

/// Maximum number of wallet records that are cached; each takes about 100 bytes.
const RECORDS_MAX: usize = 200_000;

/// Maximum number of main wallets that are cached; each takes about 100 bytes.
const MAIN_WALLETS_MAX: usize = 100_000;

/// Maximum number of open holds that are cached; each takes about 200 bytes. A cached hold is stale if another process
/// has changed the hold since.
const OPEN_HOLDS_MAX: usize = 50_000;

/// Wallet settings.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Wallets")]
pub struct WalletArgs {
    /// Currency that applies if a request under `/api/wallet` or over gRPC names none.
    #[arg(long, env = "REVWALLET_DEFAULT_CURRENCY", global = true, default_value = "EUR")]
    pub default_currency: String,
}

impl WalletArgs {
    /// Returns the default currency, or an error if it is not a supported currency.
    pub fn default_currency(&self, currencies: &Currencies) -> anyhow::Result<Currency> {
        let code = &self.default_currency;
        currencies.find(code).with_context(|| {
            format!("--default-currency {code} is not a supported currency; add it with --currency")
        })
    }
}

/// A wallet as it is after an operation.
#[derive(Debug, Clone)]
pub struct Wallet {
    pub id: WalletId,
    pub record: Arc<WalletRecord>,
    /// The part of the balance that can be spent.
    pub available: Minor,
    /// The part of the balance that is reserved by holds.
    pub held: Minor,
    /// Id of the deposit or withdrawal; `None` after other operations.
    pub transfer: Option<TransferId>,
    /// Whether an earlier request with the same idempotency key has performed the operation.
    pub replayed: bool,
}

impl Wallet {
    /// Sum of the available and the held amount.
    pub fn balance(&self) -> Minor {
        self.available.checked_add(self.held).expect("both are below 2^53")
    }
}

/// A wallet to be opened.
#[derive(Debug, Clone, Copy)]
pub struct NewWallet<'a> {
    /// Label of the owner, which the client chose.
    pub owner: &'a str,
    pub currency: Currency,
    pub initial: Option<Minor>,
    /// The user that will own the wallet. If absent, the signed-in caller will own it, if any.
    pub user: Option<UserId>,
}

/// The operations on wallets. Cheap to clone.
#[derive(Clone)]
pub struct Wallets(Arc<WalletsParts>);

pub struct WalletsParts {
    ledger: Ledger,
    db: Database,
    currencies: Currencies,
    records: Cache<WalletId, Arc<WalletRecord>>,
    open_holds: Cache<HoldId, Hold>,
    /// Cached main wallets. The key is the hash of the player id and the currency.
    main_wallets: Cache<Uuid, MainWallet>,
    default_currency: Currency,
    /// Address of Grafana for links to traces: a URL, or a path on the host that serves the wallet page.
    grafana_url: Option<String>,
    metrics: Arc<Metrics>,
    locks: StripedLock,
}

impl std::ops::Deref for Wallets {
    type Target = WalletsParts;

    fn deref(&self) -> &WalletsParts {
        &self.0
    }
}

/// Caller, idempotency key and trace id of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestMeta<'a> {
    pub caller: &'a Caller,
    pub key: &'a IdempotencyKey,
    pub trace: Uuid,
}

impl RequestMeta<'_> {
    /// Creates a posting with the request's idempotency key. `content` is the parsed request, not its text, so that a
    /// repeated request may contain `"100.00"` instead of `100`.
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
    app_user: Option<UserId>,
}

impl Wallets {
    pub fn new(
        ledger: Ledger,
        db: Database,
        currencies: Currencies,
        default_currency: Currency,
        grafana_url: Option<String>,
        metrics: Arc<Metrics>,
    ) -> Self {
        for holder in ["user", "guest"] {
            metrics.wallet_main_wallets_opened_total.preregister([holder]);
        }
        Self(Arc::new(WalletsParts {
            ledger,
            db,
            currencies,
            records: Cache::new(RECORDS_MAX),
            open_holds: Cache::new(OPEN_HOLDS_MAX),
            main_wallets: Cache::new(MAIN_WALLETS_MAX),
            default_currency,
            grafana_url,
            metrics,
            locks: StripedLock::new(),
        }))
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn currencies(&self) -> &Currencies {
        &self.currencies
    }

    /// Returns the address of Grafana: a URL, or a path on the host that serves the wallet page; `None` if no Grafana
    /// is configured.
    pub fn grafana_url(&self) -> Option<&str> {
        self.grafana_url.as_deref()
    }

    /// Reserves and returns the id of a new wallet. Consecutive ids belong to different parts (books) of the ledger, so
    /// that the wallets are spread evenly over the books.
    async fn next_id(&self) -> Result<WalletId> {
        let number = sql::next_number(&mut *self.db.acquire("wallet.next_id").await?).await?;
        Ok(WalletId(self.ledger.spread(number).0))
    }

    /// Opens a wallet. An initial deposit is part of the posting that opens the wallet, so both take effect or neither
    /// does.
    pub async fn open(&self, new: NewWallet<'_>, meta: RequestMeta<'_>) -> Result<Wallet> {
        let NewWallet { owner, currency, initial, user: holder } = new;
        let user = meta.caller.require_open(initial, holder)?;
        if let Some(holder) = holder
            && !sql::user_exists(&mut *self.db.acquire("wallet.user_exists").await?, holder).await?
        {
            return Err(Error::field("/user", "there is no user with this id"));
        }
        let id = self.next_id().await?;
        let account = AccountId::from(id);
        let mut legs = vec![Leg::from(Action::Open { account, currency })];
        legs.extend(initial.map(|amount| Leg::from(deposit_to(account, currency, amount))));
        let row = Opened { id, currency: currency.code(), owner, app_user: user };
        let companion = companion(&sql::OPENED, &row, "the wallet exists")?;
        let amount = initial.map_or(0, |minor| minor.0).to_string();
        let holder = holder.map(|holder| holder.to_string());
        let mut content = vec![owner, currency.code(), &amount];
        content.extend(holder.as_deref());
        let mut posting = meta.posting("open", &content, legs);
        posting.companions.push(companion);
        let posted = self.ledger.post(posting).await;
        let posted = posted.map_err(|error| from_post_error(&error, Some(currency)))?;
        // For a replay, this is the id of the wallet that the first request opened, not the new id above.
        let id = WalletId(posted.rows.first().ok_or_else(nothing_posted)?.debit.0);
        let record = self.record(id).await?;
        self.count_posted(&posted, currency);
        after(id, record, &posted)
    }

    /// Adds the amounts of a posting to the metrics, unless an earlier request with the same idempotency key made the
    /// posting.
    fn count_posted(&self, posted: &Posted, currency: Currency) {
        for row in posted.rows.iter().filter(|_| !posted.replayed) {
            self.count_moved(currency, row.kind, row.amount);
        }
    }

    fn count_moved(&self, currency: Currency, kind: TransferKind, amount: Minor) {
        if amount > Minor::ZERO {
            let moved = &self.metrics.wallet_amount_moved_minor_units_total;
            let amount = u64::try_from(amount.0).unwrap_or_default();
            moved.with([currency.code(), kind.name()]).increment(amount);
        }
    }
}

/// Returns a wallet as it is after a posting.
fn after(id: WalletId, record: Arc<WalletRecord>, posted: &Posted) -> Result<Wallet> {
    let available = posted.available(id.into()).ok_or_else(nothing_posted)?;
    let held = posted.held(id.into());
    Ok(Wallet { id, record, available, held, transfer: None, replayed: posted.replayed })
}

fn companion(
    kind: &'static CompanionKind,
    row: &impl Serialize,
    refusal: &'static str,
) -> Result<Companion> {
    Companion::new(kind, row, refusal).map_err(|cause| Error::Internal(cause.into()))
}

fn parse_amount(text: &str, currency: Currency) -> Result<Minor> {
    Minor::parse_amount(text, currency).map_err(|cause| Error::field("/amount", cause.to_string()))
}

fn nothing_posted() -> Error {
    Error::Internal(anyhow::anyhow!("the ledger returned a posting without its rows"))
}
