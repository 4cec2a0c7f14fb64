//! Places where a test can stop, cut or end the writer. They do nothing unless a test asks for it.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// Between which lines of the writer something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// A batch is decided, nothing of it was sent.
    BeforeSend,
    /// It was handed to the connection; another may follow in the pipe.
    AfterSend,
    /// The database has answered, nothing was done with the answer.
    AfterReply,
    /// The outcome is known, nobody was told.
    BeforeAnswer,
    /// The connection is lost, nothing was tried yet.
    BeforeReconnect,
    /// A new connection is there, nothing was sent again.
    BeforeResend,
}

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks.
    Cut,
    /// The writer ends as if the process had been killed: nobody is answered.
    Die,
}

type Hook = dyn Fn(Stage) -> BoxFuture<'static, Option<Fault>> + Send + Sync;

/// What a test wants to happen, by default nothing. The future can also just take its time.
#[derive(Clone, Default)]
pub struct Failpoints(Option<Arc<Hook>>);

impl Failpoints {
    pub fn new(
        hook: impl Fn(Stage) -> BoxFuture<'static, Option<Fault>> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(super) async fn hit(&self, stage: Stage) -> Option<Fault> {
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
