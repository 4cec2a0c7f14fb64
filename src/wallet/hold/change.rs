//! What becomes of a hold: captured, voided, expired, and decided anew when another change came first.
//!
//! It is decided on the hold that this process remembers. The row's condition confirms that; whatever speaks against
//! it, a refusal too, is decided again on the hold as the database has it.

use serde::Serialize;
use time::OffsetDateTime;

use super::{Hold, MOVED, State};
use crate::error::{Error, Result};
use crate::http::auth::{Caller, Scope};
use crate::ledger::account::{AccountId, Role};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Kind, Leg, Posting};
use crate::ledger::{PostError, Refusal};
use crate::wallet::{Asked, WalletId, Wallets, amount_of, companion, refused};

/// What another change of the same hold makes of this one.
const CHANGED: &str = "the hold has changed";

/// How often a change is decided anew because another one came first.
const ATTEMPTS_MAX: u32 = 32;

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
struct Moved<'a> {
    id: i64,
    wallet: WalletId,
    amount: i64,
    caller: &'a str,
    version: i32,
    was_captured: i64,
    was_released: i64,
    captured: i64,
    released: i64,
    state: &'a str,
}

impl Wallets {
    /// Captures, voids or expires a hold.
    pub async fn change_hold(
        &self,
        id: i64,
        change: Change<'_>,
        asked: Option<Asked<'_>>,
    ) -> Result<Hold> {
        let _turn = self.turns.take(id).await;
        for _ in 0..ATTEMPTS_MAX {
            // It is remembered again when the change has taken effect.
            let remembered = self.open_holds.take(&id);
            let is_remembered = remembered.is_some();
            let hold = match remembered {
                Some(hold) => hold,
                None => self.get_hold(id).await?,
            };
            match self.try_change(&hold, change, asked).await {
                Ok(Some(after)) => return Ok(after),
                Ok(None) => {}
                Err(error) if is_remembered && error.problem().status.is_client_error() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Overloaded)
    }

    /// Changes a hold that is as given; nothing when it is not, because another change came first.
    async fn try_change(
        &self,
        hold: &Hold,
        change: Change<'_>,
        asked: Option<Asked<'_>>,
    ) -> Result<Option<Hold>> {
        if let Some(asked) = asked {
            self.may_change_hold(asked.caller, hold).await?;
        }
        let change = change.in_currency(hold.currency)?;
        let content = change.content(hold.id);
        let content: Vec<&str> = content.iter().map(String::as_str).collect();
        let (posting, after) = match change.decide(hold) {
            Ok(decided) => decided,
            Err(error) => {
                // The first attempt of this very request may be what has ended it.
                let first = match asked {
                    Some(asked) => self.replayed(asked, change.operation(), &content).await?,
                    None => None,
                };
                return match first {
                    Some(posted) => self.hold_after(hold.id, &posted).await.map(Some),
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
            Ok(posted) if posted.replayed => self.hold_after(hold.id, &posted).await.map(Some),
            Ok(posted) => {
                self.count(&posted, hold.currency);
                self.remember_hold(&after);
                Ok(Some(Hold { transfer: posted.first_seq, ..after }))
            }
            Err(PostError::Refused(refusal)) if is_overtaken(&refusal) => Ok(None),
            Err(error) => Err(refused(&error, Some(hold.currency))),
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
                let amount = amount.map(|text| amount_of(text, currency)).transpose()?;
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
            wallet: hold.wallet,
            amount: hold.amount.0,
            caller: &hold.by,
            version: hold.version,
            was_captured: hold.captured.0,
            was_released: hold.released.0,
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
