//! Commands with which operators control orders. Each command has a reason and is recorded in the audit log.

use sqlx::Connection;

use super::{Exchange, sql};
use crate::audit_log::{self, Actor, AuditAction, NewEntry, Outcome};
use crate::auth::{Caller, Scope};
use crate::error::{Error, ExchangeRefusal, Result};
use crate::http::origin::Origin;
use crate::ids::SagaId;
use crate::saga::SagaState;
use crate::saga::operator::{self, SagaCommand};

/// Maximum number of orders that one bulk command changes.
pub const BULK_MAX: i64 = 1_000;

/// A command from an operator to an order, with the caller and the reason.
#[derive(Debug, Clone, Copy)]
pub struct OperatorCommand<'a> {
    pub command: SagaCommand,
    pub reason: &'a str,
    pub caller: &'a Caller,
    /// Origin of the HTTP request; `None` for a command from the command line.
    pub origin: Option<Origin>,
}

impl OperatorCommand<'_> {
    fn action(&self) -> AuditAction {
        match self.command {
            SagaCommand::Approve => AuditAction::OrderApproved,
            SagaCommand::Retry => AuditAction::OrderRetried,
            SagaCommand::Skip => AuditAction::OrderSkipped,
            SagaCommand::Abort => AuditAction::OrderAborted,
            SagaCommand::Resolve { .. } => AuditAction::OrderResolved,
        }
    }
}

impl Exchange {
    /// Applies a command to an order, and records it in the audit log. Requires the scope `admin`.
    pub async fn command(&self, order: SagaId, command: &OperatorCommand<'_>) -> Result<()> {
        command.caller.require_scope(Scope::Admin)?;
        let mut db = self.db.acquire("exchange.command").await?;
        let mut tx = db.begin().await?;
        operator::command(&mut tx, order, command.command, command.reason).await?;
        let subject = format!("order:{order}");
        let entry = NewEntry {
            action: command.action(),
            subject: Some(&subject),
            outcome: Outcome::Done,
            reason: Some(command.reason),
        };
        let actor = Actor { name: command.caller.name(), origin: command.origin };
        audit_log::append_entry(&mut tx, &self.metrics, actor, &entry).await?;
        tx.commit().await?;
        self.metrics.wallet_exchange_commands_total.with([command.command.name()]).increment(1);
        Ok(())
    }

    /// Applies a command to at most [`BULK_MAX`] open orders in the given state. Skips orders to which the command
    /// cannot be applied. Returns the orders that were changed.
    pub async fn command_all(
        &self,
        state: SagaState,
        command: &OperatorCommand<'_>,
    ) -> Result<Vec<SagaId>> {
        command.caller.require_scope(Scope::Admin)?;
        let mut db = self.db.acquire("exchange.open_orders").await?;
        let orders = sql::open_orders(&mut db, state.name(), BULK_MAX).await?;
        drop(db);
        let mut taken = Vec::new();
        for order in orders {
            match self.command(order, command).await {
                Ok(()) => taken.push(order),
                Err(Error::Exchange(_) | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Makes the saga worker retry an order immediately, if the order is at one of `steps` and is waiting for its next
    /// attempt. If `steps` is empty, makes the worker notify the user that the order has ended. Requires the scope
    /// `admin`.
    pub async fn wake(&self, order: SagaId, steps: &[&str], caller: &Caller) -> Result<()> {
        caller.require_scope(Scope::Admin)?;
        let mut db = self.db.acquire("exchange.wake").await?;
        if operator::wake(&mut db, order, steps).await? {
            return Ok(());
        }
        Err(ExchangeRefusal::OrderFixed("it is at another step").into())
    }
}
