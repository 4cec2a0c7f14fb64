//! Feeds: the interface through which slices define topics and turn transfers into messages.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::message::Message;
use crate::auth::Caller;
use crate::error::Result;
use crate::ledger::account::AccountId;
use crate::ledger::tail::SealedRow;

/// A topic under its canonical name.
#[derive(Debug, Clone)]
pub struct Topic {
    pub name: Arc<str>,
    /// The only accounts whose transfers concern it; empty if any transfer may.
    pub accounts: Vec<AccountId>,
    /// Whether transfers concern it at all.
    pub has_transfers: bool,
}

impl Topic {
    /// A topic of the event table only.
    pub fn of_events(name: &str) -> Self {
        Self { name: name.into(), accounts: Vec::new(), has_transfers: false }
    }
}

/// The topics that have subscribers.
pub type Wanted = HashSet<Arc<str>>;

/// A family of topics.
pub trait Feed: Send + Sync + 'static {
    /// The topic with this name or alias, if it belongs to this feed.
    fn topic(&self, name: &str) -> Option<Topic>;

    /// Refuses a caller that may not read the topic.
    fn authorize<'a>(&'a self, caller: &'a Caller, topic: &'a Topic) -> BoxFuture<'a, Result<()>>;

    /// The messages about these rows, each with the index of its row, in the order of the rows; only for wanted topics.
    /// The legs of a transfer are always together.
    fn messages<'a>(
        &'a self,
        rows: &'a [SealedRow],
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Vec<(usize, Message)>>>;
}
