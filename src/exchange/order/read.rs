//! Reads orders with their steps: a single order or a list of orders.

use rust_decimal::Decimal;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::auth::{Caller, Scope};
use crate::error::{Error, Result};
use crate::exchange::terms::Terms;
use crate::exchange::{Exchange, sql};
use crate::ids::{SagaId, UserId};
use crate::ledger::money::Minor;
use crate::saga::{SagaState, StepRow};

/// An order with its terms, its state and its steps.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: SagaId,
    pub user: UserId,
    pub terms: Terms,
    pub quote: Option<Uuid>,
    pub state: SagaState,
    /// Explanation of the state: for example, why the order is waiting or has failed; `None` if there is none.
    pub reason: Option<String>,
    pub created_at: OffsetDateTime,
    pub ended_at: Option<OffsetDateTime>,
    pub deadline: OffsetDateTime,
    pub steps: Vec<StepRow>,
}

/// Filter of a list of orders.
#[derive(Debug, Clone, Copy)]
pub struct OrderListFilter {
    pub state: Option<SagaState>,
    /// Only orders with an id below this id are listed.
    pub before: i64,
    pub limit: i64,
}

impl Exchange {
    /// Returns an order with its steps to its user, or to a caller with the scope `admin`.
    pub async fn order(&self, id: SagaId, caller: &Caller) -> Result<Order> {
        let is_admin = caller.has_scope(Scope::Admin);
        if !is_admin {
            caller.require_user()?;
        }
        let mut db = self.db.snapshot("exchange.order").await?;
        let filter =
            sql::OrderFilter { id: Some(id), before: i64::MAX, limit: 1, ..Default::default() };
        let found = self.read_orders(&mut db, &filter).await?.pop();
        found
            .filter(|order| is_admin || caller.user_id() == Some(order.user))
            .ok_or(Error::NotFound("order"))
    }

    /// Returns the orders of a user, newest first, to that user or to a caller with the scope `admin`.
    pub async fn orders_of(
        &self,
        user: UserId,
        filter: &OrderListFilter,
        caller: &Caller,
    ) -> Result<Vec<Order>> {
        caller.require_user_or_scope(user, Scope::Admin)?;
        self.list(Some(user), filter).await
    }

    /// Returns the orders of all users, or of `user`, newest first. Requires the scope `admin`.
    pub async fn orders(
        &self,
        user: Option<UserId>,
        filter: &OrderListFilter,
        caller: &Caller,
    ) -> Result<Vec<Order>> {
        caller.require_scope(Scope::Admin)?;
        self.list(user, filter).await
    }

    async fn list(&self, user: Option<UserId>, filter: &OrderListFilter) -> Result<Vec<Order>> {
        let mut db = self.db.snapshot("exchange.orders").await?;
        let filter = sql::OrderFilter {
            id: None,
            user,
            state: filter.state.map(SagaState::name),
            before: filter.before,
            limit: filter.limit,
        };
        self.read_orders(&mut db, &filter).await
    }

    async fn read_orders(
        &self,
        db: &mut sqlx::PgConnection,
        filter: &sql::OrderFilter,
    ) -> Result<Vec<Order>> {
        let rows = sql::orders(db, filter).await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.id.0).collect();
        let mut steps = crate::saga::steps_of(db, &ids).await?;
        rows.into_iter()
            .map(|row| {
                let own = steps.extract_if(.., |step| step.saga == row.id).collect();
                row.into_order(own)
            })
            .collect()
    }
}

impl sql::OrderRow {
    fn into_order(self, steps: Vec<StepRow>) -> Result<Order> {
        let price: Result<Decimal, _> = self.price.parse();
        let terms = Terms {
            side: self
                .side
                .parse()
                .map_err(|why: String| Error::Internal(anyhow::Error::msg(why)))?,
            fiat: Minor(self.fiat),
            fee: Minor(self.fee),
            crypto: Minor(self.crypto),
            price: price.map_err(|cause| Error::Internal(cause.into()))?.normalize(),
        };
        Ok(Order {
            id: self.id,
            user: self.user,
            terms,
            quote: self.quote,
            state: self.state.parse()?,
            reason: self.reason,
            created_at: self.at,
            ended_at: self.ended_at,
            deadline: self.deadline,
            steps,
        })
    }
}
