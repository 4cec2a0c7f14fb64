//! Holds: money that is set aside, and later captured or released. A hold's id is that of its first transfer.
//!
//! How much of a hold is done is a row that changes only together with its money, on the condition that it is as it
//! was when that was decided: of a capture and a void at the same moment exactly one wins.

pub mod expiry;
mod sql;

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::{Asked, Facts, WalletId, Wallets, companion, refused};
use crate::error::{Error, Result};
use crate::http::auth::{Caller, Scope};
use crate::ledger::account::{AccountId, Role};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Kind, Leg, Posted, Posting};
use crate::ledger::{PostError, Refusal};

pub use sql::{MOVED, PLACED};

/// How long a hold lasts when nobody says.
pub const LASTS_DEFAULT: Duration = Duration::from_hours(7 * 24);

/// The longest that a hold lasts.
pub const LASTS_MAX: Duration = Duration::from_hours(90 * 24);

/// What another change of the same hold makes of this one.
const CHANGED: &str = "the hold has changed";

/// How often a change is decided anew because another one came first.
const ATTEMPTS_MAX: u32 = 32;

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

/// What is to become of a hold.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    Capture {
        /// A decimal; all that remains when there is none.
        amount: Option<&'a str>,
        /// Outside when there is none.
        to: Option<WalletId>,
        /// Whether the rest is released.
        last: bool,
    },
    Void,
    Expire,
}

#[derive(Serialize)]
struct Placed<'a> {
    wallet: WalletId,
    amount: i64,
    expires_at: &'a str,
    caller: &'a str,
}

#[derive(Serialize)]
struct Moved<'a> {
    id: i64,
    version: i32,
    captured: i64,
    released: i64,
    state: &'a str,
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
        Ok(Hold {
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
        })
    }

    /// Captures, voids or expires a hold.
    pub async fn change_hold(
        &self,
        id: i64,
        change: Change<'_>,
        asked: Option<Asked<'_>>,
    ) -> Result<Hold> {
        let _turn = self.turns.take(id).await;
        for _ in 0..ATTEMPTS_MAX {
            let hold = self.get_hold(id).await?;
            if let Some(asked) = asked {
                self.may_change_hold(asked.caller, &hold).await?;
            }
            let change = change.in_currency(hold.currency)?;
            let content = change.content(id);
            let content: Vec<&str> = content.iter().map(String::as_str).collect();
            let (posting, after) = match change.decide(&hold) {
                Ok(decided) => decided,
                Err(error) => {
                    // The first attempt of this very request may be what has ended it.
                    let first = match asked {
                        Some(asked) => self.replayed(asked, change.operation(), &content).await?,
                        None => None,
                    };
                    return match first {
                        Some(posted) => self.hold_after(id, &posted).await,
                        None => Err(error),
                    };
                }
            };
            let posting = match asked {
                Some(asked) => Posting {
                    companions: posting.companions,
                    ..asked.posting(change.operation(), &content, posting.legs)
                },
                None => posting,
            };
            match self.ledger.post(posting).await {
                Ok(posted) if posted.replayed => return self.hold_after(id, &posted).await,
                Ok(posted) => {
                    self.count(&posted, hold.currency);
                    return Ok(Hold { transfer: posted.first_seq, ..after });
                }
                Err(PostError::Refused(refusal)) if is_overtaken(&refusal) => {}
                Err(error) => return Err(refused(&error, Some(hold.currency))),
            }
        }
        Err(Error::Overloaded)
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

    /// It is ended by who placed it, and by whoever may spend from any wallet: not by its owner, to whom the money
    /// was promised to be gone.
    async fn may_change_hold(&self, caller: &Caller, hold: &Hold) -> Result<()> {
        if hold.by == caller.name() || caller.has(Scope::WalletWrite) {
            return Ok(());
        }
        // Who does not even see it is not told that it is there.
        match caller.may_see(&*self.facts(hold.wallet).await?) {
            Ok(()) => caller.needs(Scope::WalletWrite),
            Err(_) => Err(Error::NotFound("hold")),
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

/// Whether another change of the hold came first: then its row, or the money, is not as it was.
fn is_overtaken(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Companion(why) => *why == CHANGED,
        Refusal::InsufficientFunds { account, .. } => account.held_for().is_some(),
        _ => false,
    }
}

impl Change<'_> {
    /// With its amount understood.
    fn in_currency(self, currency: Currency) -> Result<Understood> {
        Ok(match self {
            Self::Capture { amount, to, last } => {
                let amount = amount.map(|text| super::amount_of(text, currency)).transpose()?;
                Understood::Capture { amount, to, last }
            }
            Self::Void => Understood::Void,
            Self::Expire => Understood::Expire,
        })
    }
}

/// A change in the currency of its hold.
enum Understood {
    Capture { amount: Option<Minor>, to: Option<WalletId>, last: bool },
    Void,
    Expire,
}

impl Understood {
    const fn operation(&self) -> &'static str {
        match self {
            Self::Capture { .. } => "capture",
            Self::Void => "void",
            Self::Expire => "expire",
        }
    }

    /// The request as it was understood.
    fn content(&self, hold: i64) -> Vec<String> {
        let mut content = vec![hold.to_string()];
        if let Self::Capture { amount, to, last } = self {
            let all = || "all".to_owned();
            content.push(amount.map_or_else(all, |amount| amount.0.to_string()));
            content.push(to.map_or_else(|| "outside".to_owned(), |to| to.to_string()));
            content.push(last.to_string());
        }
        content
    }

    /// What has to be posted, and the hold after it.
    fn decide(&self, hold: &Hold) -> Result<(Posting, Hold)> {
        let expired = hold.expires_at <= OffsetDateTime::now_utc();
        match (hold.state, self) {
            (State::Open, Self::Capture { .. }) if expired => {
                return Err(Error::HoldEnded("expired"));
            }
            (State::Open, _) => {}
            (state, _) => return Err(Error::HoldEnded(state.name())),
        }
        let remaining = hold.remaining();
        let (captured, released, release_kind) = match self {
            Self::Void => (Minor::ZERO, remaining, Kind::Void),
            Self::Expire => (Minor::ZERO, remaining, Kind::Expiry),
            Self::Capture { amount, last, .. } => {
                let captured = amount.unwrap_or(remaining);
                let Some(rest) =
                    remaining.checked_sub(captured).filter(|rest| *rest >= Minor::ZERO)
                else {
                    return Err(Error::InsufficientFunds {
                        available: remaining.exact(hold.currency).to_string(),
                        required: captured.exact(hold.currency).to_string(),
                    });
                };
                (captured, if *last { rest } else { Minor::ZERO }, Kind::Void)
            }
        };
        let after = hold.moved(captured, released, release_kind);
        let legs = self.legs(hold, captured, (release_kind, released))?;
        let row = Moved {
            id: hold.id,
            version: hold.version,
            captured: captured.0,
            released: released.0,
            state: after.state.name(),
        };
        let companions = vec![companion(&MOVED, &row, CHANGED)?];
        Ok((Posting { legs, companions, ..Posting::default() }, after))
    }

    fn legs(&self, hold: &Hold, captured: Minor, release: (Kind, Minor)) -> Result<Vec<Leg>> {
        let owner = AccountId(hold.wallet);
        let debit = owner.hold().ok_or(Error::NotFound("wallet"))?;
        let target = match self {
            Self::Capture { to: Some(to), .. } => AccountId(*to),
            _ => AccountId::system(Role::World, hold.currency),
        };
        let moves = [(Kind::Capture, target, captured), (release.0, owner, release.1)];
        let moves = moves.into_iter().filter(|(_, _, amount)| *amount > Minor::ZERO);
        let legs = moves.enumerate().map(|(n, (kind, credit, amount))| Leg {
            with_previous: n > 0,
            linked: Some(hold.id),
            ..Leg::from(Action::Move { kind, debit, credit, amount })
        });
        Ok(legs.collect())
    }
}
