//! Positions of reads: how far the answer to a request takes the book and its events into account.
//!
//! A read notes the position of its snapshot. The HTTP layer runs the request inside [`observe`] and sends the position
//! as the header `Book-Position`. The code in between treats a position as opaque text. The request also says whether
//! its answer may be stale, which is from a read replica.

use std::cell::OnceCell;

tokio::task_local! {
    static READS: Reads;
}

/// The reads of the running request.
#[derive(Debug)]
struct Reads {
    /// Position of the first read.
    first: OnceCell<String>,
    may_be_stale: bool,
}

/// Runs a request, and returns the position of its first read, if there was one.
///
/// If a request reads several times, the first read has the oldest snapshot, so a client that continues from its
/// position misses nothing.
pub async fn observe<F: Future>(may_be_stale: bool, request: F) -> (F::Output, Option<String>) {
    let reads = Reads { first: OnceCell::new(), may_be_stale };
    let mut scope = std::pin::pin!(READS.scope(reads, request));
    let output = scope.as_mut().await;
    let position = scope.as_mut().take_value().and_then(|reads| reads.first.into_inner());
    (output, position)
}

/// Whether a read replica may answer the running request.
pub fn may_be_stale() -> bool {
    READS.try_with(|reads| reads.may_be_stale).unwrap_or(false)
}

/// Notes the position of a read, or of the cached answer to an earlier read. Only the first position of a request
/// counts.
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
    async fn only_a_request_that_says_so_may_be_stale() {
        assert!(observe(true, async { may_be_stale() }).await.0);
        assert!(!observe(false, async { may_be_stale() }).await.0);
        assert!(!may_be_stale());
    }
}
