//! Feeds: the interface through which slices define topics and turn transfers into messages.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt;
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
    pub transfers: TopicTransfers,
}

/// The transfers that may concern a topic.
#[derive(Debug, Clone)]
pub enum TopicTransfers {
    None,
    Any,
    /// Transfers of these accounts.
    OfAccounts(Vec<AccountId>),
    /// Transfers of the accounts that [`Feed::accounts`] finds, for topics whose accounts can grow in number.
    OfFoundAccounts,
}

impl Topic {
    /// A topic whose events all come from the event table.
    pub fn of_events(name: &str) -> Self {
        Self { name: name.into(), transfers: TopicTransfers::None }
    }
}

/// The topics that have subscribers.
pub type Wanted = HashSet<Arc<str>>;

/// A family of topics, defined by a slice.
pub trait Feed: Send + Sync + 'static {
    /// The topic with this name or alias, if it belongs to this feed.
    fn topic(&self, name: &str) -> Option<Topic>;

    /// Refuses a caller that may not read the topic.
    fn authorize<'a>(&'a self, caller: &'a Caller, topic: &'a Topic) -> BoxFuture<'a, Result<()>>;

    /// The accounts of a topic with [`TopicTransfers::OfFoundAccounts`].
    fn accounts<'a>(&'a self, _topic: &'a Topic) -> BoxFuture<'a, Result<Vec<AccountId>>> {
        async { Ok(Vec::new()) }.boxed()
    }

    /// The messages about these rows, each with the index of its row, in the order of the rows, and only for wanted
    /// topics. The legs of a transfer are never split between two calls.
    fn messages<'a>(
        &'a self,
        rows: &'a [SealedRow],
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Vec<(usize, Message)>>>;
}
