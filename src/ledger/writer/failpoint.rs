//! Failpoints: stages of the writer at which a test can inject a fault. Without a test they have no effect.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// A stage of the writer at which a fault can be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriterStage {
    /// The writer has accepted the postings of a batch, and has not sent the batch yet.
    BeforeSend,
    /// The batch was handed to the connection; the pipeline may contain other batches.
    AfterSend,
    /// The database has replied; the writer has not processed the reply yet.
    AfterReply,
    /// The writer knows that a batch was committed, and has not replied to its postings yet.
    BeforeAnswer,
    /// The connection is lost; the writer has not tried to reconnect yet.
    BeforeReconnect,
    /// A new connection is open; the writer has not resent any batch yet.
    BeforeResend,
    /// A transaction for several books has locked the books and read the data that its postings need.
    BooksLocked,
    /// The transaction for several books has written a batch to each book, and has not committed yet.
    BooksPosted,
    /// The transaction for several books was committed; the writer has not processed the reply yet.
    BooksCommitted,
}

/// A fault that a test injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedFault {
    /// Breaks the connection.
    CutConnection,
    /// Ends the writer as if the process were killed: no posting gets a reply.
    KillWriter,
}

type Hook = dyn Fn(WriterStage) -> BoxFuture<'static, Option<InjectedFault>> + Send + Sync;

/// The faults that a test injects; none by default. The test can also delay the writer without a fault.
#[derive(Clone, Default)]
pub struct Failpoints(Option<Arc<Hook>>);

impl Failpoints {
    pub fn new(
        hook: impl Fn(WriterStage) -> BoxFuture<'static, Option<InjectedFault>> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(super) async fn hit(&self, stage: WriterStage) -> Option<InjectedFault> {
        match &self.0 {
            None => None,
            Some(hook) => hook(stage).await,
        }
    }
}

impl fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Failpoints(on)" } else { "Failpoints(off)" })
    }
}
