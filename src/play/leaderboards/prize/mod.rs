//! Payment of prizes to the winners of a season. Each prize is paid at most once.
//!
//! A ledger posting pays a prize. The transaction that writes the posting also marks the prize as paid. The idempotency
//! key of the posting is derived from the prize, so the money moves only once, even if a process is killed or the job
//! runs again. A prize that cannot be paid, for example because the wallet of the winner is closed, is marked `unpaid`
//! with the reason. The other prizes are still paid.

mod account;
pub(super) mod sql;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use sqlx::Connection as _;

use super::board::BoardName;
use super::{Leaderboards, jobs};
use crate::auth::{Access, Caller, Scope};
use crate::error::{Error, Result};
use crate::idempotency_key::HashedKey;
use crate::ids::{PlayerId, SeasonId, TransferId};
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::companion::Companion;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, TransferKind};
use crate::secret::digest;
use crate::telemetry::Metrics;
use crate::wallet::main_wallet::payout::{Payout, PayoutRefusal};

pub use self::account::PrizeAccount;
pub use self::sql::PRIZE_PAID;

/// Number of due prizes that are read from the database at a time.
const PAGE_MAX: i64 = 100;

/// Maximum number of prizes that are paid concurrently. Concurrent payments share commits of the ledger.
const CONCURRENCY: usize = 16;

/// State of a prize.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrizeState {
    Due,
    Paid(TransferId),
    /// The prize could not be paid. The text is the reason, such as `wallet_closed`.
    Unpaid(String),
}

/// A prize of a season that has ended.
#[derive(Debug, Clone)]
pub struct Prize {
    pub season: SeasonId,
    pub rank: i32,
    pub owner: String,
    pub currency: Currency,
    pub amount: Minor,
    pub state: PrizeState,
}

/// Input row of the SQL statement that marks a prize as paid.
#[derive(Serialize)]
struct PaidPrize<'a> {
    /// Index, within the posting, of the movement of money (leg) that pays the prize.
    first: usize,
    season: SeasonId,
    rank: i32,
    currency: &'a str,
}

pub(super) fn preregister(metrics: &Metrics) {
    for outcome in ["paid", "unpaid"] {
        metrics.wallet_leaderboard_prizes_total.preregister([outcome]);
    }
}

impl Leaderboards {
    pub(super) fn prize_from(&self, row: sql::PrizeRow) -> Result<Prize> {
        let state = match (row.state.as_str(), row.transfer, row.reason) {
            ("due", _, _) => PrizeState::Due,
            ("paid", Some(transfer), _) => PrizeState::Paid(TransferId(transfer)),
            ("unpaid", _, Some(reason)) => PrizeState::Unpaid(reason),
            (state, ..) => {
                return Err(Error::Internal(anyhow::anyhow!("unknown state of a prize: {state}")));
            }
        };
        Ok(Prize {
            season: row.season,
            rank: row.rank,
            owner: row.owner,
            currency: self.currency(&row.currency)?,
            amount: Minor(row.amount),
            state,
        })
    }

    /// Pays all due prizes of a season. If a prize cannot be paid, marks it as unpaid.
    pub async fn pay_prizes(&self, season: SeasonId) -> Result<()> {
        loop {
            let mut db = self.db.acquire("leaderboard.due_prizes").await?;
            let due = sql::due(&mut db, season, PAGE_MAX).await?;
            drop(db);
            if due.is_empty() {
                return Ok(());
            }
            let due =
                due.into_iter().map(|row| self.prize_from(row)).collect::<Result<Vec<_>>>()?;
            stream::iter(due)
                .map(|prize| async move { self.settle(&prize).await })
                .buffer_unordered(CONCURRENCY)
                .try_collect::<()>()
                .await?;
        }
    }

    /// Pays a prize, or marks it as unpaid if it cannot be paid.
    async fn settle(&self, prize: &Prize) -> Result<()> {
        let Err(refusal) = self.pay(prize).await? else {
            self.metrics.wallet_leaderboard_prizes_total.with(["paid"]).increment(1);
            return Ok(());
        };
        let mut db = self.db.acquire("leaderboard.settle_prize").await?;
        let is_marked = sql::mark_unpaid(
            &mut db,
            prize.season,
            prize.rank,
            prize.currency.code(),
            refusal.name(),
        )
        .await?;
        // If the prize was not marked, another process has already paid it or marked it as unpaid.
        if is_marked {
            self.metrics.wallet_leaderboard_prizes_total.with(["unpaid"]).increment(1);
            tracing::warn!(
                event = "leaderboard.prize_unpaid",
                season.id = prize.season.0,
                prize.rank = prize.rank,
                reason = refusal.name(),
                "could not pay a prize of a leaderboard; fix the cause, then retry the unpaid prizes of the leaderboard"
            );
        }
        Ok(())
    }

    async fn pay(&self, prize: &Prize) -> Result<Result<TransferId, PayoutRefusal>> {
        let Prize { season, rank, owner, currency, amount, .. } = prize;
        let Ok(player) = owner.parse::<PlayerId>() else {
            return Ok(Err(PayoutRefusal::UnknownPlayer));
        };
        let name = [season.to_string(), rank.to_string()];
        let key = HashedKey {
            hash: digest(&["leaderboard prize", &name[0], &name[1], currency.code()]),
            content: digest(&[owner, &amount.0.to_string()]),
        };
        let payout = Payout {
            player: &player,
            currency: *currency,
            key: Some(key),
            trace: None,
            may_open_guest: self.policy.access == Access::Open,
        };
        let debit = AccountId::system(SystemRole::Prize, *currency);
        let legs = |credit| {
            let kind = TransferKind::Payout;
            vec![Leg::from(Action::Move { kind, debit, credit, amount: *amount })]
        };
        let settle = |first| {
            let row = PaidPrize { first, season: *season, rank: *rank, currency: currency.code() };
            let companion = Companion::new(&PRIZE_PAID, &row, "the prize is settled");
            Ok(vec![companion.map_err(|cause| Error::Internal(cause.into()))?])
        };
        let paid = self.wallets.pay_main(&payout, legs, settle).await?;
        Ok(paid.map(|posted| TransferId(posted.last_seq)))
    }

    /// Marks the unpaid prizes of a leaderboard as due again, and enqueues the jobs that pay them. Returns the number
    /// of prizes.
    pub async fn retry_prizes(&self, name: &BoardName, caller: &Caller) -> Result<u64> {
        caller.require_scope(Scope::Admin)?;
        let board = self.id_of(name).await?;
        let mut db = self.db.acquire("leaderboard.retry_prizes").await?;
        let mut tx = db.begin().await?;
        let seasons = sql::retry(&mut tx, board).await?;
        let count = seasons.len();
        for season in seasons.into_iter().collect::<std::collections::BTreeSet<_>>() {
            jobs::enqueue_prizes(&mut tx, season).await?;
        }
        tx.commit().await?;
        Ok(count as u64)
    }
}
