//! Feeds: the interface by which other modules define topics and turn transfers into messages for the subscribers.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::message::Message;
use crate::auth::Caller;
use crate::error::Result;
use crate::ledger::account::AccountId;
use crate::ledger::tail::SealedRow;

/// A topic that clients can subscribe to. A topic may also have aliases; `name` is its canonical name.
#[derive(Debug, Clone)]
pub struct Topic {
    pub name: Arc<str>,
    pub transfers: TopicTransfers,
}

/// The transfers that the feed may turn into messages of a topic.
#[derive(Debug, Clone)]
pub enum TopicTransfers {
    None,
    Any,
    /// Transfers of these accounts.
    OfAccounts(Vec<AccountId>),
    /// Transfers of the accounts that [`Feed::accounts`] returns, for topics to which accounts are added over time.
    OfFoundAccounts,
}

impl Topic {
    /// Creates a topic whose messages all come from the event table, and none from transfers.
    pub fn of_events(name: &str) -> Self {
        Self { name: name.into(), transfers: TopicTransfers::None }
    }
}

/// Topics with at least one subscriber in this process.
pub type Wanted = HashSet<Arc<str>>;

/// A family of topics that a module defines, such as the topics of wallets.
pub trait Feed: Send + Sync + 'static {
    /// Returns the topic with this name or alias, or `None` if the feed does not define such a topic.
    fn topic(&self, name: &str) -> Option<Topic>;

    /// Returns an error unless the caller may subscribe to the topic.
    fn authorize<'a>(&'a self, caller: &'a Caller, topic: &'a Topic) -> BoxFuture<'a, Result<()>>;

    /// Returns the accounts of a topic that was declared with [`TopicTransfers::OfFoundAccounts`].
    fn accounts<'a>(&'a self, _topic: &'a Topic) -> BoxFuture<'a, Result<Vec<AccountId>>> {
        async { Ok(Vec::new()) }.boxed()
    }

    /// Turns rows of the ledger into messages, but only into messages of `wanted` topics. Each message comes with the
    /// index of its row, and the messages are in the order of the rows. Rows of the same transfer are never split
    /// between two calls.
    fn messages<'a>(
        &'a self,
        rows: &'a [SealedRow],
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Vec<(usize, Message)>>>;
}
