//! Holds: money that is reserved, and later captured or released. The id of a hold is the id of the transfer that
//! placed it.
//!
//! A capture, void or expiry updates the row of the hold in the same transaction that moves the money. If another
//! operation changes the row first, no money moves, and the operation is checked again against the changed row.

pub mod expiry;
mod sql;
mod transition;

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::transfer::Note;
use super::{RequestMeta, Wallets, companion, from_post_error, nothing_posted, parse_amount};
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::ids::{HoldId, TransferId, WalletId};
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, Posted, TransferKind};

pub use self::sql::{MOVED, PLACED};
pub use self::transition::{CaptureRest, Transition};

/// Lifetime of a hold if the client does not specify a lifetime.
pub const LIFETIME_DEFAULT: Duration = Duration::from_hours(7 * 24);

/// Longest lifetime of a hold.
pub const LIFETIME_MAX: Duration = Duration::from_hours(90 * 24);

/// A hold in its current state, or in the state right after one of its transfers.
#[derive(Debug, Clone)]
pub struct Hold {
    pub id: HoldId,
    pub wallet: WalletId,
    pub currency: Currency,
    pub amount: Minor,
    pub captured: Minor,
    pub released: Minor,
    pub expires_at: OffsetDateTime,
    pub created_at: OffsetDateTime,
    pub state: HoldState,
    pub note: Note,
    /// Name of the caller that placed the hold.
    placed_by: String,
    version: i32,
    /// Id of the transfer that the requested capture, void or expiry made. If the hold was only placed or read, id of
    /// the transfer that placed it.
    pub transfer: TransferId,
    pub replayed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum HoldState {
    Open,
    Captured,
    Voided,
    Expired,
}

impl HoldState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Captured => "captured",
            Self::Voided => "voided",
            Self::Expired => "expired",
        }
    }
}

impl FromStr for HoldState {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Open, Self::Captured, Self::Voided, Self::Expired]
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| Error::Internal(anyhow::anyhow!("unknown state of a hold: {name}")))
    }
}

impl Hold {
    /// Returns the amount that is still reserved.
    pub fn remaining(&self) -> Minor {
        let done = self.captured.checked_add(self.released);
        done.and_then(|done| self.amount.checked_sub(done)).unwrap_or_default()
    }

    /// Returns the hold as it is after the given amounts were captured and released. `end` is the kind of transfer that
    /// released the money.
    fn moved(&self, captured: Minor, released: Minor, end: TransferKind) -> Self {
        let add = |so_far: Minor, more: Minor| so_far.checked_add(more).unwrap_or(so_far);
        let mut after = Self {
            captured: add(self.captured, captured),
            released: add(self.released, released),
            version: self.version + 1,
            ..self.clone()
        };
        after.state = match (after.remaining(), end) {
            (Minor::ZERO, TransferKind::Expiry) => HoldState::Expired,
            (Minor::ZERO, _) if after.captured > Minor::ZERO => HoldState::Captured,
            (Minor::ZERO, _) => HoldState::Voided,
            _ => HoldState::Open,
        };
        after
    }
}

#[derive(Serialize)]
struct Placed<'a> {
    wallet: WalletId,
    amount: i64,
    expires_at: &'a str,
    caller: &'a str,
}

impl Wallets {
    /// Reserves money in a wallet. `amount` is a decimal in the wallet's currency.
    pub async fn place_hold(
        &self,
        wallet: WalletId,
        amount: &str,
        (lifetime, note): (Duration, Note),
        meta: RequestMeta<'_>,
    ) -> Result<Hold> {
        let record = self.record(wallet).await?;
        meta.caller.require_spend(&record)?;
        let amount = parse_amount(amount, record.currency)?;
        let account = AccountId::from(wallet);
        let held = account.hold().ok_or(Error::NotFound("wallet"))?;
        // The time is truncated to microseconds, because the database stores no finer precision.
        let expires_at = OffsetDateTime::now_utc().truncate_to_microsecond() + lifetime;
        let kind = TransferKind::Hold;
        let action = Action::Move { kind, debit: account, credit: held, amount };
        let content = [wallet.to_string(), amount.0.to_string(), lifetime.as_secs().to_string()];
        let content = content.each_ref().map(String::as_str);
        let leg = Leg { metadata: note.to_stored()?, ..Leg::from(action) };
        let mut posting = meta.posting("hold", &note.added_to(&content), vec![leg]);
        let text = sql::moment(expires_at)?;
        let placed_by = meta.caller.name();
        let row = Placed { wallet, amount: amount.0, expires_at: &text, caller: placed_by };
        posting.companions.push(companion(&PLACED, &row, "the hold exists")?);
        let posted = self.ledger.post(posting).await;
        let posted = posted.map_err(|error| from_post_error(&error, Some(record.currency)))?;
        if posted.replayed {
            return self.hold_after(HoldId(posted.first_seq), &posted).await;
        }
        self.count_posted(&posted, record.currency);
        let hold = Hold {
            id: HoldId(posted.first_seq),
            wallet,
            currency: record.currency,
            amount,
            captured: Minor::ZERO,
            released: Minor::ZERO,
            expires_at,
            created_at: posted.at,
            state: HoldState::Open,
            note,
            placed_by: placed_by.to_owned(),
            version: 0,
            transfer: TransferId(posted.first_seq),
            replayed: false,
        };
        self.cache_hold(&hold);
        Ok(hold)
    }

    /// Caches an open hold, so that its next transition (capture, void or expiry) need not query the database.
    fn cache_hold(&self, hold: &Hold) {
        if hold.state == HoldState::Open {
            self.open_holds.insert(hold.id, hold.clone());
        }
    }

    /// Returns a hold. The caller must have placed the hold, or be allowed to see its wallet; other callers get 404.
    pub async fn get_hold(&self, caller: &Caller, id: HoldId) -> Result<Hold> {
        let row = sql::find(&mut *self.db.snapshot("wallet.get_hold").await?, id).await?;
        let row = row.ok_or(Error::NotFound("hold"))?;
        let record = self.record(row.wallet).await?;
        let hold = row.into_hold(record.currency)?;
        if hold.placed_by == caller.name() || caller.require_read(&record).is_ok() {
            Ok(hold)
        } else {
            Err(Error::NotFound("hold"))
        }
    }

    /// Returns at most `limit` holds of a wallet with an id below `before`, newest first.
    pub async fn list_holds(
        &self,
        caller: &Caller,
        wallet: WalletId,
        before: i64,
        limit: i64,
    ) -> Result<Vec<Hold>> {
        let record = self.visible_record(caller, wallet).await?;
        let mut db = self.db.snapshot("wallet.list_holds").await?;
        let rows = sql::list(&mut db, wallet, before, limit).await?;
        rows.into_iter().map(|row| row.into_hold(record.currency)).collect()
    }

    async fn find_hold(&self, id: HoldId) -> Result<Hold> {
        let row = sql::find(&mut *self.db.acquire("wallet.find_hold").await?, id).await?;
        let row = row.ok_or(Error::NotFound("hold"))?;
        let record = self.record(row.wallet).await?;
        row.into_hold(record.currency)
    }

    /// Returns the hold as it was after the first request with the same idempotency key, for the response to a repeated
    /// request. Computes the hold from the transfers that are linked to it.
    async fn hold_after(&self, id: HoldId, posted: &Posted) -> Result<Hold> {
        let hold = self.find_hold(id).await?;
        let mut db = self.db.acquire("wallet.hold_after").await?;
        let moved = sql::moved_until(&mut db, id, posted.last_seq).await?;
        let state = HoldState::Open;
        let placed = Hold { captured: Minor::ZERO, released: Minor::ZERO, state, ..hold };
        let after = match moved.last_kind {
            Some(code) => {
                let end = TransferKind::from_code(code).ok_or_else(nothing_posted)?;
                placed.moved(Minor(moved.captured), Minor(moved.released), end)
            }
            None => placed,
        };
        Ok(Hold { transfer: TransferId(posted.first_seq), replayed: true, ..after })
    }
}

impl sql::HoldRow {
    fn into_hold(self, currency: Currency) -> Result<Hold> {
        Ok(Hold {
            id: self.id,
            wallet: self.wallet,
            currency,
            amount: Minor(self.amount),
            captured: Minor(self.captured),
            released: Minor(self.released),
            expires_at: self.expires_at,
            created_at: self.created_at,
            state: self.state.parse()?,
            note: Note::from_stored(self.metadata.as_deref()),
            placed_by: self.caller,
            version: self.version,
            transfer: TransferId(self.id.0),
            replayed: false,
        })
    }
}
