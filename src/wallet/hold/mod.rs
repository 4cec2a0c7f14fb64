//! Holds: money that is set aside, and later captured or released. A hold's id is that of its first transfer.
//!
//! How much of a hold is done is a row that changes only together with its money, on the condition that it is as it
//! was when that was decided: of a capture and a void at the same moment exactly one wins.

mod change;
pub mod expiry;
mod sql;

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::{Asked, Facts, WalletId, Wallets, companion, refused};
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Kind, Leg, Posted};

pub use change::Change;
pub use sql::{MOVED, PLACED};

/// How long a hold lasts when nobody says.
pub const LASTS_DEFAULT: Duration = Duration::from_hours(7 * 24);

/// The longest that a hold lasts.
pub const LASTS_MAX: Duration = Duration::from_hours(90 * 24);

/// A hold as it is, or as it was after a transfer.
#[derive(Debug, Clone)]
pub struct Hold {
    pub id: i64,
    pub wallet: WalletId,
    pub currency: Currency,
    pub amount: Minor,
    pub captured: Minor,
    pub released: Minor,
    pub expires_at: OffsetDateTime,
    pub created_at: OffsetDateTime,
    pub state: State,
    /// Who placed it.
    by: String,
    version: i32,
    /// The transfer that made it what it is.
    pub transfer: i64,
    pub replayed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    Captured,
    Voided,
    Expired,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Captured => "captured",
            Self::Voided => "voided",
            Self::Expired => "expired",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Open, Self::Captured, Self::Voided, Self::Expired]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

impl Hold {
    /// What is still set aside.
    pub fn remaining(&self) -> Minor {
        let done = self.captured.checked_add(self.released);
        done.and_then(|done| self.amount.checked_sub(done)).unwrap_or_default()
    }

    /// As it is after a part of it was captured and another part released.
    fn moved(&self, captured: Minor, released: Minor, end: Kind) -> Self {
        let add = |so_far: Minor, more: Minor| so_far.checked_add(more).unwrap_or(so_far);
        let mut after = Self {
            captured: add(self.captured, captured),
            released: add(self.released, released),
            version: self.version + 1,
            ..self.clone()
        };
        after.state = match (after.remaining(), end) {
            (Minor::ZERO, Kind::Expiry) => State::Expired,
            (Minor::ZERO, _) if after.captured > Minor::ZERO => State::Captured,
            (Minor::ZERO, _) => State::Voided,
            _ => State::Open,
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
    /// Sets money aside.
    pub async fn place_hold(
        &self,
        wallet: WalletId,
        facts: &Facts,
        amount: Minor,
        lasts: Duration,
        asked: Asked<'_>,
    ) -> Result<Hold> {
        let held = AccountId(wallet).hold().ok_or(Error::NotFound("wallet"))?;
        // As fine as the database keeps it.
        let expires_at = OffsetDateTime::now_utc().truncate_to_microsecond() + lasts;
        let action =
            Action::Move { kind: Kind::Hold, debit: AccountId(wallet), credit: held, amount };
        let content = [wallet.to_string(), amount.0.to_string(), lasts.as_secs().to_string()];
        let content = content.each_ref().map(String::as_str);
        let mut posting = asked.posting("hold", &content, vec![Leg::from(action)]);
        let text = sql::moment(expires_at)?;
        let by = asked.caller.name();
        let row = Placed { wallet, amount: amount.0, expires_at: &text, caller: by };
        posting.companions.push(companion(&PLACED, &row, "the hold exists")?);
        let posted = self.ledger.post(posting).await;
        let posted = posted.map_err(|error| refused(&error, Some(facts.currency)))?;
        if posted.replayed {
            return self.hold_after(posted.first_seq, &posted).await;
        }
        self.count(&posted, facts.currency);
        let hold = Hold {
            id: posted.first_seq,
            wallet,
            currency: facts.currency,
            amount,
            captured: Minor::ZERO,
            released: Minor::ZERO,
            expires_at,
            created_at: posted.at,
            state: State::Open,
            by: by.to_owned(),
            version: 0,
            transfer: posted.first_seq,
            replayed: false,
        };
        self.remember_hold(&hold);
        Ok(hold)
    }

    /// Its next change need not read it.
    fn remember_hold(&self, hold: &Hold) {
        if hold.state == State::Open {
            self.open_holds.insert(hold.id, hold.clone());
        }
    }

    pub async fn get_hold(&self, id: i64) -> Result<Hold> {
        let found = sql::find(&mut *self.db.acquire("wallet.get_hold").await?, id).await?;
        self.hold_of(found.ok_or(Error::NotFound("hold"))?).await
    }

    /// A hold of a wallet that this caller may look at; another's is nobody's business.
    pub async fn hold_seen_by(&self, caller: &Caller, id: i64) -> Result<Hold> {
        let hold = self.get_hold(id).await?;
        let facts = self.facts(hold.wallet).await?;
        if hold.by == caller.name() || caller.may_see(&facts).is_ok() {
            Ok(hold)
        } else {
            Err(Error::NotFound("hold"))
        }
    }

    /// The holds of a wallet with an id below `before`, newest first.
    pub async fn list_holds(&self, wallet: WalletId, before: i64, limit: i64) -> Result<Vec<Hold>> {
        self.facts(wallet).await?;
        let mut db = self.db.acquire("wallet.list_holds").await?;
        let rows = sql::list(&mut db, wallet, before, limit).await?;
        drop(db);
        let mut holds = Vec::with_capacity(rows.len());
        for row in rows {
            holds.push(self.hold_of(row).await?);
        }
        Ok(holds)
    }

    async fn hold_of(&self, row: sql::Row) -> Result<Hold> {
        let currency = self.facts(row.wallet).await?.currency;
        Ok(Hold {
            id: row.id,
            wallet: row.wallet,
            currency,
            amount: Minor(row.amount),
            captured: Minor(row.captured),
            released: Minor(row.released),
            expires_at: row.expires_at,
            created_at: row.created_at,
            state: State::of_name(&row.state).ok_or_else(super::nothing_posted)?,
            by: row.caller,
            version: row.version,
            transfer: row.id,
            replayed: false,
        })
    }

    /// The hold as it was after an earlier answer, from the transfers that are linked to it.
    async fn hold_after(&self, id: i64, posted: &Posted) -> Result<Hold> {
        let hold = self.get_hold(id).await?;
        let mut db = self.db.acquire("wallet.hold_after").await?;
        let moved = sql::moved_until(&mut db, id, posted.last_seq).await?;
        let new = Hold { captured: Minor::ZERO, released: Minor::ZERO, state: State::Open, ..hold };
        let after = match moved.last_kind.and_then(Kind::of_code) {
            Some(end) => new.moved(Minor(moved.captured), Minor(moved.released), end),
            None => new,
        };
        Ok(Hold { transfer: posted.first_seq, replayed: true, ..after })
    }
}
