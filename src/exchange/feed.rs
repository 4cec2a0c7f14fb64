//! The realtime topic `order:{id}`, which sends each new state of an order to the order's user and to callers with the
//! scope `admin`.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::sql;
use crate::auth::{Caller, Scope};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::ids::SagaId;
use crate::ledger::tail::SealedRow;
use crate::realtime::Message;
use crate::realtime::feed::{Feed, Topic, Wanted};

/// Realtime topics of orders. Their messages come only from the event table, never from the ledger's transfers.
pub struct OrderTopics(pub Database);

impl Feed for OrderTopics {
    fn topic(&self, name: &str) -> Option<Topic> {
        let order = order_of(name)?;
        Some(Topic::of_events(&format!("order:{order}")))
    }

    fn authorize<'a>(&'a self, caller: &'a Caller, topic: &'a Topic) -> BoxFuture<'a, Result<()>> {
        async move {
            if caller.has_scope(Scope::Admin) {
                return Ok(());
            }
            let user = caller.require_user()?;
            let order = order_of(&topic.name).ok_or(Error::NotFound("order"))?;
            let owner = sql::owner(&mut *self.0.acquire("exchange.owner").await?, order).await?;
            if owner == Some(user) { Ok(()) } else { Err(Error::NotFound("order")) }
        }
        .boxed()
    }

    fn messages<'a>(
        &'a self,
        _rows: &'a [SealedRow],
        _wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Vec<(usize, Message)>>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

fn order_of(topic: &str) -> Option<SagaId> {
    crate::http::fields::id(topic.strip_prefix("order:")?).map(SagaId)
}
