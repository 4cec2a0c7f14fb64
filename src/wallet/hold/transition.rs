//! Transitions of a hold: capture, void and expiry.
//!
//! A transition is first checked against the cached hold. Its posting takes effect only if the row in the database
//! still matches the cached hold. If the row does not match, or if the cached hold does not permit the transition, the
//! transition is checked again against the row.

use serde::Serialize;
use time::OffsetDateTime;

use super::{Hold, HoldState, MOVED};
use crate::auth::{Caller, Scope};
use crate::error::{Error, Result};
use crate::ids::{HoldId, TransferId, WalletId};
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, Posting, TransferKind};
use crate::ledger::{PostError, Refusal};
use crate::wallet::{RequestMeta, Wallets, companion, from_post_error, parse_amount};

/// Refusal of a transition (capture, void or expiry) because another transition changed the hold first.
const CHANGED: &str = "the hold has changed";

/// Maximum number of attempts at a transition (capture, void or expiry) of a hold. An attempt fails if another
/// transition changes the hold first.
const ATTEMPTS_MAX: u32 = 32;

/// A requested capture, void or expiry of a hold. The amount is not parsed yet.
#[derive(Debug, Clone, Copy)]
pub enum Transition<'a> {
    Capture {
        /// Amount to capture, as a decimal; the whole remaining amount if absent.
        amount: Option<&'a str>,
        /// The receiving wallet; if absent, the money leaves the system.
        to: Option<WalletId>,
        rest: CaptureRest,
    },
    Void,
    Expire,
}

/// Effect of a capture on the rest of the hold: the rest is released or stays reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureRest {
    Release,
    Keep,
}

#[derive(Serialize)]
struct Moved<'a> {
    id: HoldId,
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
    /// Captures or voids a hold. The caller must have placed the hold, or have the scope `wallet:write`.
    pub async fn transition_hold(
        &self,
        id: HoldId,
        transition: Transition<'_>,
        meta: RequestMeta<'_>,
    ) -> Result<Hold> {
        if let Transition::Capture { to: Some(to), .. } = transition {
            self.record(to).await?;
        }
        self.retry_transition(id, transition, Some(meta)).await
    }

    /// Ends a hold whose expiry has passed, and releases its money.
    pub(super) async fn expire_hold(&self, id: HoldId) -> Result<Hold> {
        self.retry_transition(id, Transition::Expire, None).await
    }

    async fn retry_transition(
        &self,
        id: HoldId,
        transition: Transition<'_>,
        meta: Option<RequestMeta<'_>>,
    ) -> Result<Hold> {
        let _guard = self.locks.lock(id.0).await;
        for _ in 0..ATTEMPTS_MAX {
            // The hold is cached again after the transition has taken effect.
            let cached = self.open_holds.remove(&id);
            let is_cached = cached.is_some();
            let hold = match cached {
                Some(hold) => hold,
                None => self.find_hold(id).await?,
            };
            match self.try_transition(&hold, transition, meta).await {
                Ok(Some(after)) => return Ok(after),
                Ok(None) => {}
                Err(error) if is_cached && error.problem().status.is_client_error() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Overloaded)
    }

    /// Makes one attempt at a transition of a hold. Returns `None` if another transition changed the hold first.
    async fn try_transition(
        &self,
        hold: &Hold,
        transition: Transition<'_>,
        meta: Option<RequestMeta<'_>>,
    ) -> Result<Option<Hold>> {
        if let Some(meta) = meta {
            self.require_transition(meta.caller, hold).await?;
        }
        let change = transition.in_currency(hold.currency)?;
        let content = change.content(hold.id);
        let content: Vec<&str> = content.iter().map(String::as_str).collect();
        let (posting, after) = match change.decide(hold) {
            Ok(decided) => decided,
            Err(error) => {
                // An earlier attempt of the same request may have ended the hold.
                let first = match meta {
                    Some(meta) => self.find_replay(meta, change.operation(), &content).await?,
                    None => None,
                };
                return match first {
                    Some(posted) => self.hold_after(hold.id, &posted).await.map(Some),
                    None => Err(error),
                };
            }
        };
        let posting = match meta {
            Some(meta) => Posting {
                companions: posting.companions,
                ..meta.posting(change.operation(), &content, posting.legs)
            },
            None => posting,
        };
        match self.ledger.post(posting).await {
            Ok(posted) if posted.replayed => self.hold_after(hold.id, &posted).await.map(Some),
            Ok(posted) => {
                self.count_posted(&posted, hold.currency);
                self.cache_hold(&after);
                Ok(Some(Hold { transfer: TransferId(posted.first_seq), ..after }))
            }
            Err(PostError::Refused(refusal)) if is_overtaken(&refusal) => Ok(None),
            Err(error) => Err(from_post_error(&error, Some(hold.currency))),
        }
    }

    /// Returns an error unless the caller may capture or void the hold. Owning the wallet is not enough, because the
    /// money is promised to another party.
    async fn require_transition(&self, caller: &Caller, hold: &Hold) -> Result<()> {
        if hold.placed_by == caller.name() || caller.has_scope(Scope::WalletWrite) {
            return Ok(());
        }
        // A caller that may not even see the hold gets 404.
        match caller.require_read(&*self.record(hold.wallet).await?) {
            Ok(()) => caller.require_scope(Scope::WalletWrite),
            Err(_) => Err(Error::NotFound("hold")),
        }
    }
}

/// Whether the ledger refused the posting because another transition changed the hold first.
fn is_overtaken(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Companion(why) => *why == CHANGED,
        Refusal::InsufficientFunds { account, .. } => account.held_for().is_some(),
        _ => false,
    }
}

impl Transition<'_> {
    /// Parses the amount in the currency of the hold.
    fn in_currency(self, currency: Currency) -> Result<ResolvedTransition> {
        Ok(match self {
            Self::Capture { amount, to, rest } => {
                let amount = amount.map(|text| parse_amount(text, currency)).transpose()?;
                ResolvedTransition::Capture { amount, to, rest }
            }
            Self::Void => ResolvedTransition::Void,
            Self::Expire => ResolvedTransition::Expire,
        })
    }
}

/// A capture, void or expiry of a hold. The amount is valid in the currency of the hold.
enum ResolvedTransition {
    Capture { amount: Option<Minor>, to: Option<WalletId>, rest: CaptureRest },
    Void,
    Expire,
}

impl ResolvedTransition {
    const fn operation(&self) -> &'static str {
        match self {
            Self::Capture { .. } => "capture",
            Self::Void => "void",
            Self::Expire => "expire",
        }
    }

    /// Returns the parsed request as text, to detect an idempotency key that is reused for a different request.
    fn content(&self, hold: HoldId) -> Vec<String> {
        let mut content = vec![hold.to_string()];
        if let Self::Capture { amount, to, rest } = self {
            let all = || "all".to_owned();
            content.push(amount.map_or_else(all, |amount| amount.0.to_string()));
            content.push(to.map_or_else(|| "outside".to_owned(), |to| to.to_string()));
            content.push((*rest == CaptureRest::Release).to_string());
        }
        content
    }

    /// Checks that the hold permits the transition. Returns the posting for the transition, and the hold as it will be
    /// afterwards.
    fn decide(&self, hold: &Hold) -> Result<(Posting, Hold)> {
        let expired = hold.expires_at <= OffsetDateTime::now_utc();
        match (hold.state, self) {
            (HoldState::Open, Self::Capture { .. }) if expired => {
                return Err(Error::HoldEnded("expired"));
            }
            (HoldState::Open, _) => {}
            (state, _) => return Err(Error::HoldEnded(state.name())),
        }
        if matches!(self, Self::Capture { to, .. } if *to == Some(hold.wallet)) {
            let detail = "must be another wallet; void the hold to release its money";
            return Err(Error::field("/to", detail));
        }
        let remaining = hold.remaining();
        let (captured, released, release_kind) = match self {
            Self::Void => (Minor::ZERO, remaining, TransferKind::Void),
            Self::Expire => (Minor::ZERO, remaining, TransferKind::Expiry),
            Self::Capture { amount, rest: fate, .. } => {
                let captured = amount.unwrap_or(remaining);
                let Some(rest) =
                    remaining.checked_sub(captured).filter(|rest| *rest >= Minor::ZERO)
                else {
                    return Err(Error::InsufficientFunds {
                        available: remaining.exact(hold.currency).to_string(),
                        required: captured.exact(hold.currency).to_string(),
                    });
                };
                let released = match fate {
                    CaptureRest::Release => rest,
                    CaptureRest::Keep => Minor::ZERO,
                };
                (captured, released, TransferKind::Void)
            }
        };
        let after = hold.moved(captured, released, release_kind);
        let legs = self.legs(hold, captured, (release_kind, released))?;
        let row = Moved {
            id: hold.id,
            wallet: hold.wallet,
            amount: hold.amount.0,
            caller: &hold.placed_by,
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

    fn legs(
        &self,
        hold: &Hold,
        captured: Minor,
        release: (TransferKind, Minor),
    ) -> Result<Vec<Leg>> {
        let owner = AccountId::from(hold.wallet);
        let debit = owner.hold().ok_or(Error::NotFound("wallet"))?;
        let target = match self {
            Self::Capture { to: Some(to), .. } => AccountId::from(*to),
            _ => AccountId::system(SystemRole::World, hold.currency),
        };
        let moves = [(TransferKind::Capture, target, captured), (release.0, owner, release.1)];
        let moves = moves.into_iter().filter(|(_, _, amount)| *amount > Minor::ZERO);
        let legs = moves.enumerate().map(|(n, (kind, credit, amount))| Leg {
            with_previous: n > 0,
            linked: Some(hold.id.0),
            ..Leg::from(Action::Move { kind, debit, credit, amount })
        });
        Ok(legs.collect())
    }
}
