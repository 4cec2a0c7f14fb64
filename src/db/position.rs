//! Positions of reads: how far the answer to a request takes the book and its events into account.
//!
//! A read notes the position of its snapshot. The HTTP layer runs the request inside [`observe`] and sends the position
//! as the header `Book-Position`. The code in between treats a position as opaque text.

use std::cell::OnceCell;

tokio::task_local! {
    /// Position of the first read of the running request.
    static FIRST_READ: OnceCell<String>;
}

/// Runs a request, and returns the position of its first read, if there was one.
///
/// If a request reads several times, the first read has the oldest snapshot, so a client that continues from its
/// position misses nothing.
pub async fn observe<F: Future>(request: F) -> (F::Output, Option<String>) {
    let mut scope = std::pin::pin!(FIRST_READ.scope(OnceCell::new(), request));
    let output = scope.as_mut().await;
    let position = scope.as_mut().take_value().and_then(OnceCell::into_inner);
    (output, position)
}

/// Notes the position of a read, or of the cached answer to an earlier read. Only the first position of a request
/// counts.
pub fn note_read(position: String) {
    // Background work has no response that could carry a position.
    let _outside = FIRST_READ.try_with(|first| {
        let _later = first.set(position);
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

        assert_eq!(observe(reads).await, (7, Some("first".to_owned())));
        assert_eq!(observe(async {}).await, ((), None));
    }
}
