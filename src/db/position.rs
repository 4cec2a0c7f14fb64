//! Positions of database reads in the ledger. A position identifies the last transfer and the last event of the ledger
//! that a response reflects.
//!
//! Each read records the position of its snapshot. The HTTP layer runs a request inside [`observe`] and sends the
//! position of the first read as the header `Book-Position`. The code between the database and the HTTP layer treats a
//! position as opaque text. If the client accepts a stale response, a read replica may serve the reads of the request.

use std::cell::{Cell, OnceCell};

tokio::task_local! {
    static READS: Reads;
}

/// Information about the current request's database reads.
#[derive(Debug)]
struct Reads {
    /// Position of the first read of the request.
    first: OnceCell<String>,
    /// Whether the client accepts a stale response.
    may_be_stale: bool,
    /// Whether the primary database has served a read of the request.
    is_fresh: Cell<bool>,
}

/// Runs a request, and returns the position of its first read, if there was one.
///
/// If a request reads several times, the first read has the oldest snapshot, so a client that continues from the
/// position of the first read misses nothing.
pub async fn observe<F: Future>(may_be_stale: bool, request: F) -> (F::Output, Option<String>) {
    let reads = Reads { first: OnceCell::new(), may_be_stale, is_fresh: Cell::new(false) };
    let mut scope = std::pin::pin!(READS.scope(reads, request));
    let output = scope.as_mut().await;
    let position = scope.as_mut().take_value().and_then(|reads| reads.first.into_inner());
    (output, position)
}

/// Whether the client of the current request accepts a stale response.
pub fn may_be_stale() -> bool {
    READS.try_with(|reads| reads.may_be_stale).unwrap_or(false)
}

/// Whether a read replica may serve the next read of the current request. After the primary database has served a read,
/// the replica must not serve the next read, because the data of the replica may be older than the position in the
/// response.
pub(super) fn may_use_replica() -> bool {
    READS.try_with(|reads| reads.may_be_stale && !reads.is_fresh.get()).unwrap_or(false)
}

/// Records that the primary database serves a read of the current request.
pub(super) fn note_fresh() {
    // Background work never uses a replica.
    let _outside = READS.try_with(|reads| reads.is_fresh.set(true));
}

/// Records the position of a read, or of the cached response to an earlier read. Further positions of the same request
/// have no effect.
pub fn note_read(position: String) {
    // Background work has no response that could carry a position.
    let _outside = READS.try_with(|reads| {
        let _later = reads.first.set(position);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_read_of_a_request_counts() {
        let reads = async {
            note_read("first".to_owned());
            note_read("second".to_owned());
            7
        };

        assert_eq!(observe(false, reads).await, (7, Some("first".to_owned())));
        assert_eq!(observe(false, async {}).await, ((), None));
    }

    #[tokio::test]
    async fn only_a_request_that_says_so_may_be_stale_and_only_until_the_primary_answers() {
        let requests = async |is_stale| {
            let reads = async {
                let before = may_use_replica();
                note_fresh();
                (before, may_use_replica(), may_be_stale())
            };
            observe(is_stale, reads).await.0
        };

        assert_eq!(requests(true).await, (true, false, true));
        assert_eq!(requests(false).await, (false, false, false));
        assert!(!may_use_replica());
    }
}
