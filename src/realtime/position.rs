//! Positions in the ledger and in the event table. Clients get positions as text, in the header `Book-Position` and in
//! events.
//!
//! The text is `p1.<epoch>.<seq>.<batch>.<xid>.<event>`, with a pair of `<seq>.<batch>` for each book. In responses to
//! reads, the text comes from the SQL function `ledger.position`. Clients must treat the text as opaque.

use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;

use crate::ledger::book::{BOOKS_MAX, FIRST_BOOK, book_of, first_seal, index_of};
use crate::ledger::tail::Position;

const EPOCH_LEN: usize = 16;
const BATCH_LEN: usize = 12;

/// Maximum number of parts, separated by dots, in the text form.
const PARTS_MAX: usize = 4 + 2 * BOOKS_MAX as usize;

/// A position in both sources of events, the ledger and the event table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookPosition {
    /// Id of this installation's data, which changes when a backup is restored.
    pub epoch: [u8; EPOCH_LEN],
    /// Position in each book of the ledger, in the order of the books.
    pub books: SmallVec<[SealedPosition; 1]>,
    /// Position, in the event table, of the newest event that this position includes.
    pub event: Position,
}

/// A position in a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedPosition {
    /// Sequence number of the newest transfer that the position includes.
    pub seq: i64,
    /// Id of the batch that contains the newest transfer; zeros before the first transfer of a book.
    pub batch: [u8; BATCH_LEN],
}

impl SealedPosition {
    /// The position before the first transfer of a book.
    fn start(book: i32) -> Self {
        Self { seq: first_seal(book), batch: [b'0'; BATCH_LEN] }
    }
}

impl BookPosition {
    /// Returns whether this position includes everything that `other` includes.
    pub fn covers(&self, other: &Self) -> bool {
        let mut books = self.books.iter().zip(&other.books);
        books.all(|(own, other)| own.seq >= other.seq) && self.event >= other.event
    }

    /// Returns the later of the two positions, separately for each book and for the event table.
    #[must_use]
    pub fn join(mut self, other: &Self) -> Self {
        for (own, other) in self.books.iter_mut().zip(&other.books) {
            if own.seq < other.seq {
                *own = *other;
            }
        }
        self.event = self.event.max(other.event);
        self
    }

    /// Returns the earlier of the two positions, separately for each book and for the event table.
    #[must_use]
    pub fn meet(mut self, other: &Self) -> Self {
        for (own, other) in self.books.iter_mut().zip(&other.books) {
            if own.seq > other.seq {
                *own = *other;
            }
        }
        self.event = self.event.min(other.event);
        self
    }

    /// Returns this position, advanced in `book` to the position of `other` if `other` is further ahead in that book.
    #[must_use]
    pub fn join_book(mut self, other: &Self, book: i32) -> Self {
        let index = index_of(book);
        if let (Some(own), Some(other)) = (self.books.get_mut(index), other.books.get(index))
            && own.seq < other.seq
        {
            *own = *other;
        }
        self
    }

    /// Returns the sequence number of the newest transfer that this position includes from a book.
    pub fn seq(&self, book: i32) -> i64 {
        self.books.get(index_of(book)).map_or(first_seal(book), |position| position.seq)
    }

    /// Returns this position advanced to the transfer with the sequence number `seq`, which the given batch contains.
    #[must_use]
    pub fn after_transfer(mut self, seq: i64, batch: &str) -> Self {
        if let Some(position) = self.books.get_mut(index_of(book_of(seq))) {
            position.seq = seq;
            position.batch = batch.as_bytes().try_into().unwrap_or(position.batch);
        }
        self
    }

    /// Returns this position resized to the first `count` books: entries of further books are dropped, and a book
    /// without an entry starts before its first transfer.
    #[must_use]
    pub fn with_books(mut self, count: i32) -> Self {
        self.books.truncate(usize::try_from(count).unwrap_or_default());
        let missing = (FIRST_BOOK..=count).skip(self.books.len());
        self.books.extend(missing.map(SealedPosition::start));
        self
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
        write!(f, "p1.{}", text(&self.epoch)?)?;
        for SealedPosition { seq, batch } in &self.books {
            write!(f, ".{seq}.{}", text(batch)?)?;
        }
        write!(f, ".{xid}.{event}")
    }
}

/// Error for a text that is not a valid position.
#[derive(Debug, thiserror::Error)]
#[error("not a position")]
pub struct InvalidPosition;

impl FromStr for BookPosition {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let parts: SmallVec<[&str; 8]> = text.split('.').take(PARTS_MAX + 1).collect();
        let ["p1", epoch, books @ .., xid, event] = &parts[..] else { return Err(InvalidPosition) };
        let (pairs, []) = books.as_chunks::<2>() else { return Err(InvalidPosition) };
        if pairs.is_empty() || parts.len() > PARTS_MAX {
            return Err(InvalidPosition);
        }
        let mut positions = SmallVec::new();
        for (book, [seq, batch]) in (1..).zip(pairs) {
            let seq = number(seq)?;
            if book_of(seq) != book {
                return Err(InvalidPosition);
            }
            positions.push(SealedPosition { seq, batch: digits(batch)? });
        }
        Ok(Self {
            epoch: digits(epoch)?,
            books: positions,
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

        assert_eq!((position.seq(1), position.event), (17, Position { seq: 900, event: 3 }));
        assert_eq!(position.to_string(), TEXT);
        let end = BookPosition { event: Position { seq: 900, event: i64::MAX }, ..position };
        assert!(end.to_string().ends_with(".901.0"));
    }

    #[test]
    fn a_position_has_a_part_for_each_book() {
        let second = first_seal(2) + 5;
        let text = format!("p1.0123456789abcdef.17.0123456789ab.{second}.{}.900.3", "ab".repeat(6));
        let position: BookPosition = text.parse().unwrap();

        assert_eq!(
            (position.seq(1), position.seq(2), position.seq(3)),
            (17, second, first_seal(3))
        );
        assert_eq!(position.to_string(), text);
        let later = position.clone().after_transfer(second + 1, "cdcdcdcdcdcd");
        assert_eq!((later.seq(1), later.seq(2)), (17, second + 1));
        assert!(later.covers(&position) && !position.covers(&later));
        assert_eq!(later.clone().meet(&position), position);
        assert_eq!(position.join(&later), later);
        let alone: BookPosition = TEXT.parse().unwrap();
        assert_eq!(alone.clone().with_books(2).seq(2), first_seal(2));
        assert_eq!(alone.clone().with_books(2).with_books(1), alone);
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
            "p1.0123456789abcdef.17.0123456789ab.18.0123456789ab.900.3",
            "p1.0123456789abcdef.900.3",
        ] {
            assert!(text.parse::<BookPosition>().is_err(), "{text}");
        }
    }

    #[test]
    fn positions_are_compared_in_both_sources() {
        let at = |seq, id| {
            let position: BookPosition = TEXT.parse().unwrap();
            let event = Position { seq: id, event: 0 };
            BookPosition { event, ..position.after_transfer(seq, "0123456789ab") }
        };

        assert!(at(5, 5).covers(&at(5, 4)) && !at(5, 5).covers(&at(4, 6)));
        assert_eq!(at(5, 3).join(&at(4, 6)), at(5, 6));
        assert_eq!(at(5, 3).meet(&at(4, 6)), at(4, 3));
    }
}
