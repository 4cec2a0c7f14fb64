//! Raises: ledger transfers that increase the balance of a player's main wallet. The release of a hold is not a raise,
//! because held money is part of the balance.
//!
//! Most transfers change neither the highest balance of a player nor the leader of the game (the player with the
//! highest balance ever). The database filters these transfers out, so a single query can cover thousands of transfers.

use sqlx::PgConnection;
use uuid::Uuid;

use super::sql;
use crate::ids::{TransferId, WalletId};
use crate::ledger::tail::{NotifyChannel, Position, Segment, Source, Transfers};

/// A transfer that increases the balance of a player's main wallet.
#[derive(Debug, Clone)]
pub(in crate::play) struct Raise {
    pub seq: i64,
    pub transfer: TransferId,
    pub trace_id: Option<Uuid>,
    pub wallet: WalletId,
    pub player: String,
    /// Code of the wallet's currency.
    pub currency: String,
    /// Balance right after the transfer, in minor units, including held money.
    pub balance: i64,
}

/// Maximum number of transfers that one read for [`LeadingRaises`] scans.
const LEADING_WINDOW_MAX: i64 = 20_000;

/// Maximum number of transfers that one read for [`HighestRaises`] scans. For each player, only the highest
/// balance within a read is recorded, so longer reads mean fewer writes.
const HIGHEST_WINDOW_MAX: i64 = 50_000;

/// Source of raises (transfers that increase a balance): [`LeadingRaises`] if `LEADING` is true, otherwise
/// [`HighestRaises`].
pub(in crate::play) struct Raises<const LEADING: bool>;

/// Source of the transfers that raise a player's balance above the leader's record (the highest balance ever, in the
/// table `game_leader`).
pub(in crate::play) type LeadingRaises = Raises<true>;

/// Source that returns, in each read, one transfer per player and currency: the transfer after which the player's
/// balance was highest.
pub(in crate::play) type HighestRaises = Raises<false>;

impl<const LEADING: bool> Source for Raises<LEADING> {
    type Item = Raise;

    const CHANNEL: NotifyChannel = NotifyChannel::Book;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> sqlx::Result<Segment<Raise>> {
        let end = Self::end(db, book).await?;
        let window = if LEADING { LEADING_WINDOW_MAX } else { HIGHEST_WINDOW_MAX };
        let window_end = end.min(Position::after(after.seq + window));
        if window_end <= after {
            return Ok(Segment { after, until: after, items: Vec::new(), is_full: false });
        }
        let (first, last) = (after.seq, window_end.seq);
        let items = if LEADING {
            sql::leading_raises(db, book, first, last, max).await?
        } else {
            sql::highest_raises(db, book, first, last, max).await?
        };
        // If the list reaches the limit, the next read begins after the last item and finds the missing raises.
        let has_more_items = i64::try_from(items.len()).is_ok_and(|count| count >= max);
        let last_item = items.last().filter(|_| has_more_items);
        let until = last_item.map_or(window_end, Self::position_of);
        Ok(Segment { after, until, items, is_full: until < end })
    }

    async fn end(db: &mut PgConnection, book: i32) -> sqlx::Result<Position> {
        Transfers::end(db, book).await
    }

    async fn lag(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        Transfers::lag(db, book, position).await
    }

    fn position_of(raise: &Raise) -> Position {
        Position::after(raise.seq)
    }
}
