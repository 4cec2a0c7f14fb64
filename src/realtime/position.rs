//! Positions in the ledger and in the event table, as the header `Book-Position` and events contain them.
//!
//! The text form is `p1.<epoch>.<seq>.<batch>.<xid>.<event>`. For reads, an SQL function of migration 18 creates it.
//! Clients must not interpret it.

use std::fmt;
use std::str::FromStr;

use crate::ledger::tail::Position;

const EPOCH_LEN: usize = 16;
const BATCH_LEN: usize = 12;

/// A position in both sources of events, the ledger and the event table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookPosition {
    /// Id of this installation's data, which changes when a backup is restored.
    pub epoch: [u8; EPOCH_LEN],
    /// Sequence number of the newest transfer that the position includes.
    pub seq: i64,
    /// Id of the batch that contains the newest transfer.
    pub batch: [u8; BATCH_LEN],
    /// Position in the event table of the newest event that is included.
    pub event: Position,
}

impl BookPosition {
    /// Whether this position includes everything that `other` includes.
    pub fn covers(&self, other: &Self) -> bool {
        self.seq >= other.seq && self.event >= other.event
    }

    /// Returns the later of both positions, separately for the ledger and the event table.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        let book = if self.seq >= other.seq { self } else { other };
        Self { event: self.event.max(other.event), ..book }
    }

    /// Returns the earlier of both positions, separately for the ledger and the event table.
    #[must_use]
    pub fn meet(self, other: Self) -> Self {
        let book = if self.seq <= other.seq { self } else { other };
        Self { event: self.event.min(other.event), ..book }
    }

    /// Returns this position after a transfer with the number `seq` in the given batch.
    #[must_use]
    pub fn after_transfer(self, seq: i64, batch: &str) -> Self {
        Self { seq, batch: batch.as_bytes().try_into().unwrap_or(self.batch), ..self }
    }
}

impl fmt::Display for BookPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| fmt::Error);
        // The end of a transaction is written as the beginning of the next transaction, because the text form has no
        // end marker.
        let (xid, event) = match self.event {
            Position { seq, event: i64::MAX } => (seq + 1, 0),
            Position { seq, event } => (seq, event),
        };
        let (epoch, batch) = (text(&self.epoch)?, text(&self.batch)?);
        write!(f, "p1.{epoch}.{}.{batch}.{xid}.{event}", self.seq)
    }
}

/// Error for a text that is not a valid position.
#[derive(Debug, thiserror::Error)]
#[error("not a position")]
pub struct InvalidPosition;

impl FromStr for BookPosition {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(InvalidPosition);
        if next()? != "p1" {
            return Err(InvalidPosition);
        }
        let (epoch, seq, batch, xid, event) = (next()?, next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(InvalidPosition);
        }
        Ok(Self {
            epoch: digits(epoch)?,
            seq: number(seq)?,
            batch: digits(batch)?,
            event: Position { seq: number(xid)?, event: number(event)? },
        })
    }
}

fn number(text: &str) -> Result<i64, InvalidPosition> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain).ok_or(InvalidPosition)
}

fn digits<const N: usize>(text: &str) -> Result<[u8; N], InvalidPosition> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    text.as_bytes().try_into().ok().filter(|_| is_hex).ok_or(InvalidPosition)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "p1.0123456789abcdef.17.0123456789ab.900.3";

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position: BookPosition = TEXT.parse().unwrap();

        assert_eq!((position.seq, position.event), (17, Position { seq: 900, event: 3 }));
        assert_eq!(position.to_string(), TEXT);
        let end = BookPosition { event: Position { seq: 900, event: i64::MAX }, ..position };
        assert!(end.to_string().ends_with(".901.0"));
    }

    #[test]
    fn any_other_text_is_refused() {
        for text in [
            "",
            "17",
            "p1",
            "p2.0123456789abcdef.17.0123456789ab.900.3",
            "p1.0123456789abcdef.17.0123456789ab.900",
            "p1.0123456789abcdef.17.0123456789ab.900.3.4",
            "p1.0123456789abcdeX.17.0123456789ab.900.3",
            "p1.0123456789abcdef.-17.0123456789ab.900.3",
            "p1.0123456789abcdef.17.0123456789ab.900.99999999999999999999",
        ] {
            assert!(text.parse::<BookPosition>().is_err(), "{text}");
        }
    }

    #[test]
    fn positions_are_compared_in_both_sources() {
        let at = |seq, id| BookPosition {
            seq,
            event: Position { seq: id, event: 0 },
            ..TEXT.parse().unwrap()
        };

        assert!(at(5, 5).covers(&at(5, 4)) && !at(5, 5).covers(&at(4, 6)));
        assert_eq!(at(5, 3).join(at(4, 6)), at(5, 6));
        assert_eq!(at(5, 3).meet(at(4, 6)), at(4, 3));
    }
}
