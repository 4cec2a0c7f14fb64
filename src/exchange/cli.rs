//! Commands of the exchange: `revwallet order` lists, shows and controls orders; `revwallet exchange` funds the hot
//! wallets and controls the simulated exchange and blockchain.

use std::time::Duration;

use anyhow::Context;
use rust_decimal::Decimal;

use super::Exchange;
use super::args::{price, share};
use super::hot_wallet::HotWallets;
use super::http::body::{OrderBody, StatusBody};
use super::http::operators::{CommandedBody, HotWalletsBody};
use super::operator::OperatorCommand;
use super::order::{Order, OrderListFilter};
use super::outside::simulated::SimulationChange;
use super::terms::Pair;
use crate::auth::Caller;
use crate::error::Error;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{SagaId, UserId};
use crate::ledger::currency::Currencies;
use crate::output::OutputArgs;
use crate::saga::SagaState;
use crate::saga::operator::SagaCommand;
use crate::settings;

#[derive(Debug, clap::Subcommand)]
pub enum OrderCommand {
    /// List orders, newest first.
    List {
        /// Only orders in this state.
        #[arg(long, value_parser = state)]
        state: Option<SagaState>,
        /// Only orders of this user.
        #[arg(long)]
        user: Option<i64>,
        /// Maximum number of orders to list.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000))]
        limit: i64,
    },
    /// Show an order with its steps.
    Show {
        /// Id of the order.
        order: i64,
    },
    /// Start an order that waits for approval.
    Approve(CommandArgs),
    /// Retry the current step of an order, or its undo, at once.
    Retry(CommandArgs),
    /// Skip the failed undo of a step, after you have undone the step by hand.
    Skip(CommandArgs),
    /// Give up an order and undo its steps.
    Abort(CommandArgs),
    /// Record whether a call to the external exchange or the blockchain took effect, if its outcome is unknown.
    Resolve {
        /// Id of the order.
        order: i64,
        /// Outcome of the call, according to the external exchange or the blockchain.
        #[arg(long, value_parser = ["done", "not-done"])]
        outcome: String,
        /// Reason for the command, which the audit log records.
        #[arg(long)]
        reason: String,
    },
}

/// Arguments of a command to an order, or to all open orders in a state.
#[derive(Debug, clap::Args)]
pub struct CommandArgs {
    /// Id of the order.
    #[arg(required_unless_present = "all_in_state")]
    order: Option<i64>,
    /// Apply the command to all open orders in this state instead of a single order.
    #[arg(long = "all", conflicts_with = "order", value_parser = state)]
    all_in_state: Option<SagaState>,
    /// Reason for the command, which the audit log records.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, clap::Subcommand)]
pub enum ExchangeCommand {
    /// Print the balances of the hot wallets.
    HotWallets,
    /// Deposit money into a hot wallet, or withdraw money from it.
    Fund {
        /// Code of the currency: BTC or the default currency.
        #[arg(long = "in")]
        code: String,
        /// Amount to deposit, as a decimal; a negative amount is withdrawn.
        #[arg(long, allow_hyphen_values = true)]
        amount: String,
        /// Reason for the command, which the audit log records.
        #[arg(long)]
        reason: String,
    },
    /// Change how the simulated exchange and blockchain behave, in every process.
    Simulate {
        /// Price of one bitcoin.
        #[arg(long, value_parser = price)]
        price: Option<Decimal>,
        /// Share of the calls that fail, from 0 to 1.
        #[arg(long, value_parser = share)]
        failures: Option<f64>,
        /// Time that each call takes.
        #[arg(long, value_parser = settings::duration)]
        latency: Option<Duration>,
        /// Duration of an outage that begins now, in which every call fails.
        #[arg(long, value_parser = settings::duration)]
        down: Option<Duration>,
    },
}

fn state(name: &str) -> Result<SagaState, String> {
    let found = SagaState::ALL.into_iter().find(|state| state.name() == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = SagaState::ALL.iter().map(|state| state.name()).collect();
        format!("must be one of {}", names.join(", "))
    })
}

/// Runs a command on orders and prints its result.
pub async fn run_order(
    exchange: &Exchange,
    command: OrderCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let caller = Caller::operator();
    let (command, args) = match command {
        OrderCommand::List { state, user, limit } => {
            let filter = OrderListFilter { state, before: i64::MAX, limit };
            let orders = exchange.orders(user.map(UserId), &filter, &caller).await;
            let orders = orders.map_err(Error::into_cause)?;
            let pair = exchange.pair();
            return output.print(
                orders,
                |orders| bodies(orders, pair),
                |orders| Ok(list(orders, pair)),
            );
        }
        OrderCommand::Show { order } => {
            let order = exchange.order(SagaId(order), &caller).await.map_err(Error::into_cause)?;
            let pair = exchange.pair();
            return output.print(
                order,
                |order| body(order, pair),
                |order| Ok(details(order, pair)),
            );
        }
        OrderCommand::Approve(args) => (SagaCommand::Approve, args),
        OrderCommand::Retry(args) => (SagaCommand::Retry, args),
        OrderCommand::Skip(args) => (SagaCommand::Skip, args),
        OrderCommand::Abort(args) => (SagaCommand::Abort, args),
        OrderCommand::Resolve { order, outcome, reason } => {
            let args = CommandArgs { order: Some(order), all_in_state: None, reason };
            (SagaCommand::Resolve { is_done: outcome == "done" }, args)
        }
    };
    run_command(exchange, command, args, output).await
}

async fn run_command(
    exchange: &Exchange,
    command: SagaCommand,
    args: CommandArgs,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let CommandArgs { order, all_in_state, reason } = args;
    let caller = Caller::operator();
    let operator = OperatorCommand { command, reason: &reason, caller: &caller, origin: None };
    if let Some(state) = all_in_state {
        let taken = exchange.command_all(state, &operator).await.map_err(Error::into_cause)?;
        let text = format!("command applied to {} orders", taken.len());
        return output.print(taken, |taken| Ok(CommandedBody::from(taken)), |_| Ok(text));
    }
    let order = SagaId(order.context("give the id of an order, or --all STATE")?);
    exchange.command(order, &operator).await.map_err(Error::into_cause)?;
    output.print(StatusBody::OK, Ok, |_| Ok(format!("command applied to order {order}")))
}

/// Runs a command on the exchange and prints its result.
pub async fn run_exchange(
    exchange: &Exchange,
    command: ExchangeCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let pair = exchange.pair();
    match command {
        ExchangeCommand::HotWallets => {
            print_hot_wallets(exchange, output, |hot| {
                let Pair { fiat, crypto } = pair;
                let (fiat_amount, crypto_amount) = (hot.fiat.exact(fiat), hot.crypto.exact(crypto));
                format!("{} {fiat_amount}\n{} {crypto_amount}", fiat.code(), crypto.code())
            })
            .await
        }
        ExchangeCommand::Fund { code, amount, reason } => {
            let Pair { fiat, crypto } = pair;
            let currency = [fiat, crypto].into_iter().find(|currency| currency.code() == code);
            let currency = currency.with_context(|| {
                format!(
                    "there is no hot wallet in {code}: give {} or {}",
                    fiat.code(),
                    crypto.code()
                )
            })?;
            let amount = Currencies::written_amount(&amount);
            let amount = amount.map_err(|why| anyhow::anyhow!("--amount {why}"))?;
            let (caller, key) = (Caller::operator(), IdempotencyKey::absent());
            let funded = exchange.fund_hot_wallet(currency, amount, &caller, &key, &reason).await;
            let balance = funded.map_err(Error::into_cause)?;
            let text = format!("{code} {}", balance.exact(currency));
            print_hot_wallets(exchange, output, |_| text).await
        }
        ExchangeCommand::Simulate { price, failures, latency, down } => {
            let change = SimulationChange { price, failure_rate: failures, latency, down };
            exchange.simulation().simulate(&change).await.map_err(Error::into_cause)?;
            output.print(StatusBody::OK, Ok, |_| Ok("changed".to_owned()))
        }
    }
}

async fn print_hot_wallets(
    exchange: &Exchange,
    output: OutputArgs,
    text: impl FnOnce(&HotWallets) -> String,
) -> anyhow::Result<()> {
    let hot = exchange.hot_wallets(&Caller::operator()).await.map_err(Error::into_cause)?;
    let body = |hot| HotWalletsBody::new(hot, exchange.pair()).map_err(Error::into_cause);
    output.print(hot, body, |hot| Ok(text(hot)))
}

fn body(order: Order, pair: Pair) -> anyhow::Result<OrderBody> {
    OrderBody::new(order, pair).map_err(Error::into_cause)
}

fn bodies(orders: Vec<Order>, pair: Pair) -> anyhow::Result<Vec<OrderBody>> {
    orders.into_iter().map(|order| body(order, pair)).collect()
}

fn list(orders: &[Order], pair: Pair) -> String {
    if orders.is_empty() {
        return "no order".to_owned();
    }
    orders.iter().map(|order| summary(order, pair)).collect::<Vec<_>>().join("\n")
}

fn summary(order: &Order, pair: Pair) -> String {
    let reason = order.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!(
        "{} {} user {} {} {} {} {}{reason}",
        order.id,
        order.terms.side.name(),
        order.user,
        order.terms.fiat.exact(pair.fiat),
        pair.fiat.code(),
        order.terms.crypto.exact(pair.crypto),
        order.state.name(),
    )
}

fn details(order: &Order, pair: Pair) -> String {
    let mut lines = vec![summary(order, pair), format!("price {}", order.terms.price)];
    for step in &order.steps {
        let error = step.error.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
        lines.push(format!(
            "{}: {}, {} attempts, {} undo attempts{error}",
            step.name, step.state, step.attempts, step.undo_attempts
        ));
    }
    lines.join("\n")
}
