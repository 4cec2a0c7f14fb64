//! The steps of an order: the call that a step makes to an external system, and the ledger transfers of the step.
//!
//! | step | buy | sell |
//! |---|---|---|
//! | `hold` | the user's fiat goes to the hot wallet | the user's crypto goes to the hot wallet |
//! | `exchange` | the hot wallet pays fiat and gets crypto; the fee goes to the revenue account | the hot wallet pays crypto and gets fiat |
//! | `withdraw`, `payout` | the blockchain transfers the crypto, and the hot wallet pays it to the user | the hot wallet pays fiat to the user, and the fee to the revenue account |
//!
//! If the price changes between the order and the trade, the house bears the difference. If a hot wallet has too little
//! money, the order waits.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::notice::Notice;
use super::order::OrderInput;
use super::outside::{ChainGateway, ChainTransfer, Exchanger, Fill, Notifier, Trade};
use super::sql;
use super::terms::{Pair, Side};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::ids::{PlayerId, TransferId};
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::companion::Companion;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, Posting, TransferKind};
use crate::saga::{
    Booked, Call, CallOutcome, Definition, Ended, SagaHandler, SagaState, StepAction,
    StepDefinition,
};
use crate::telemetry::Metrics;
use crate::wallet::Wallets;
use crate::wallet::main_wallet::payout::{Payout, PayoutRefusal};

/// Name of the first step. The ledger posting that places an order also completes this step.
pub(super) const HELD: &str = "hold";

const HOLD: StepDefinition = StepDefinition { name: HELD, calls: false, has_undo: true };
const EXCHANGE: StepDefinition = StepDefinition { name: "exchange", calls: true, has_undo: true };
const WITHDRAW: StepDefinition = StepDefinition { name: "withdraw", calls: true, has_undo: false };
const PAYOUT: StepDefinition = StepDefinition { name: "payout", calls: false, has_undo: false };

/// Definitions of the steps of buy and sell orders; the newest definition of each side comes last. An order keeps the
/// definition with which it began, so a change to the steps requires a new definition.
static DEFINITIONS: [Definition; 2] = [
    Definition { kind: "buy", version: 1, steps: &[HOLD, EXCHANGE, WITHDRAW] },
    Definition { kind: "sell", version: 1, steps: &[HOLD, EXCHANGE, PAYOUT] },
];

/// Returns the definition of the steps for new orders of a side (buy or sell).
pub(super) fn newest(side: Side) -> &'static Definition {
    let newest = DEFINITIONS.iter().rev().find(|definition| definition.kind == side.name());
    newest.expect("both sides have a definition")
}

/// Returns the currency and the amount that the first step holds: the user's payment for the order.
pub(super) fn held(pair: Pair, side: Side, fiat: Minor, crypto: Minor) -> (Currency, Minor) {
    match side {
        Side::Buy => (pair.fiat, fiat),
        Side::Sell => (pair.crypto, crypto),
    }
}

/// Carries out the steps of orders for the saga engine.
pub struct OrderSteps {
    pub(super) wallets: Wallets,
    pub(super) exchanger: Arc<dyn Exchanger>,
    pub(super) chain: Arc<dyn ChainGateway>,
    /// Sends mail to users; `None` if no mail server is configured.
    pub(super) notifier: Option<Arc<dyn Notifier>>,
    pub(super) db: Database,
    pub(super) pair: Pair,
    pub(super) metrics: Arc<Metrics>,
}

/// A movement of money between system accounts, such as from the hot wallet to the account that represents the world
/// outside the ledger.
struct Movement {
    kind: TransferKind,
    from: SystemRole,
    to: SystemRole,
    currency: Currency,
    amount: Minor,
}

impl Movement {
    const fn new(
        kind: TransferKind,
        from: SystemRole,
        to: SystemRole,
        currency: Currency,
        amount: Minor,
    ) -> Self {
        Self { kind, from, to, currency, amount }
    }
}

type Settle<'a> = &'a (dyn Fn(usize) -> Result<Companion> + Sync);

impl SagaHandler for OrderSteps {
    fn definitions() -> &'static [Definition] {
        &DEFINITIONS
    }

    async fn submit(&self, call: &Call<'_>) -> Result<()> {
        let input = input(call)?;
        if call.step.name == EXCHANGE.name {
            let side = trade_side(input.side, call.action);
            return self
                .exchanger
                .trade(&call.reference, Trade { side, crypto: input.crypto })
                .await;
        }
        let transfer = ChainTransfer { user: call.owner, crypto: input.crypto };
        self.chain.withdraw(&call.reference, transfer).await
    }

    async fn find(&self, call: &Call<'_>) -> Result<CallOutcome> {
        if call.step.name == EXCHANGE.name {
            self.exchanger.find(&call.reference).await
        } else {
            self.chain.find(&call.reference).await
        }
    }

    async fn cancel(&self, call: &Call<'_>) -> Result<CallOutcome> {
        if call.step.name == EXCHANGE.name {
            self.exchanger.cancel(&call.reference).await
        } else {
            self.chain.cancel(&call.reference).await
        }
    }

    async fn book<'a>(
        &'a self,
        call: &'a Call<'_>,
        answer: Option<&'a RawValue>,
        settle: Settle<'a>,
    ) -> Result<Booked> {
        let input = input(call)?;
        let (fiat, crypto) = (self.pair.fiat, self.pair.crypto);
        match (call.step.name, call.action) {
            ("hold", StepAction::Undo) => {
                let (currency, amount) = held(self.pair, input.side, input.fiat, input.crypto);
                self.pay(call, TransferKind::Refund, currency, amount, None, settle).await
            }
            ("exchange", _) => {
                let movements = self.trade_movements(call, &input, answer)?;
                self.post(call, &movements, settle).await
            }
            ("withdraw", StepAction::Do) => {
                self.pay(call, TransferKind::Exchange, crypto, input.crypto, None, settle).await
            }
            ("payout", StepAction::Do) => {
                let fee = Some(input.fee);
                self.pay(call, TransferKind::Exchange, fiat, input.fiat, fee, settle).await
            }
            (step, action) => Err(Error::Internal(anyhow::anyhow!(
                "an order cannot {} the step {step}",
                action.name()
            ))),
        }
    }

    async fn notify(&self, ended: &Ended<'_>) -> Result<()> {
        let Some(notifier) = &self.notifier else { return Ok(()) };
        let input: OrderInput = serde_json::from_str(ended.input.get())
            .map_err(|cause| Error::Internal(cause.into()))?;
        let mut db = self.db.acquire("exchange.recipient").await?;
        let (address, first_name) = sql::recipient(&mut db, ended.owner).await?;
        drop(db);
        let amount = |minor: Minor, currency: Currency| {
            format!("{} {}", minor.exact(currency), currency.code())
        };
        let notice = Notice {
            order: ended.saga,
            reference: ended.reference,
            address,
            first_name,
            side: input.side,
            is_completed: ended.state == SagaState::Completed,
            reason: ended.reason.map(str::to_owned),
            fiat: amount(input.fiat, self.pair.fiat),
            crypto: amount(input.crypto, self.pair.crypto),
        };
        notifier.notify(&notice).await
    }
}

/// Returns the side of the trade with the external exchange: the side of the order, or the opposite side if the trade
/// undoes an earlier trade.
fn trade_side(side: Side, action: StepAction) -> Side {
    match (side, action) {
        (Side::Buy, StepAction::Do) | (Side::Sell, StepAction::Undo) => Side::Buy,
        (Side::Sell, StepAction::Do) | (Side::Buy, StepAction::Undo) => Side::Sell,
    }
}

fn input(call: &Call<'_>) -> Result<OrderInput> {
    serde_json::from_str(call.input.get()).map_err(|cause| Error::Internal(cause.into()))
}

/// Returns the fiat amount of a trade, as the external exchange reported it. If an operator has set the outcome, no
/// amount was reported; the result is then the amount at the price of the order.
fn traded(answer: Option<&RawValue>, input: &OrderInput) -> Result<Minor> {
    let fill = answer.map(Option::<Fill>::deserialize).transpose();
    let fill = fill.map_err(|cause| Error::Internal(cause.into()))?.flatten();
    Ok(fill.map_or(input.traded, |fill| fill.fiat))
}

impl OrderSteps {
    /// Returns the movements of money for a trade, or for the opposite trade that undoes it.
    fn trade_movements(
        &self,
        call: &Call<'_>,
        input: &OrderInput,
        answer: Option<&RawValue>,
    ) -> Result<Vec<Movement>> {
        use SystemRole::{Hot, Revenue, World};
        let (kind, fee) = (TransferKind::Exchange, TransferKind::Fee);
        let (fiat, crypto) = (self.pair.fiat, self.pair.crypto);
        let moved = traded(answer, input)?;
        let movements = match (input.side, call.action) {
            (Side::Buy, StepAction::Do) => vec![
                Movement::new(kind, World, Hot, crypto, input.crypto),
                Movement::new(kind, Hot, World, fiat, moved),
                Movement::new(fee, Hot, Revenue, fiat, input.fee),
            ],
            (Side::Sell, StepAction::Do) => vec![
                Movement::new(kind, Hot, World, crypto, input.crypto),
                Movement::new(kind, World, Hot, fiat, moved),
            ],
            // The transfers of the first trade are not in the ledger, so only the difference between the two trades is
            // written.
            (side, StepAction::Undo) if !call.is_booked => {
                let first = traded(call.result, input)?;
                let loss = match side {
                    Side::Buy => first.0 - moved.0,
                    Side::Sell => moved.0 - first.0,
                };
                let (from, to) = if loss > 0 { (Hot, World) } else { (World, Hot) };
                vec![Movement::new(kind, from, to, fiat, Minor(loss.abs()))]
            }
            (Side::Buy, StepAction::Undo) => vec![
                Movement::new(kind, World, Hot, fiat, moved),
                Movement::new(kind, Hot, World, crypto, input.crypto),
                Movement::new(fee, Revenue, Hot, fiat, input.fee),
            ],
            (Side::Sell, StepAction::Undo) => vec![
                Movement::new(kind, World, Hot, crypto, input.crypto),
                Movement::new(kind, Hot, World, fiat, moved),
            ],
        };
        Ok(movements.into_iter().filter(|movement| movement.amount > Minor::ZERO).collect())
    }

    /// Writes movements of money between system accounts to the ledger, as a single transfer.
    async fn post(
        &self,
        call: &Call<'_>,
        movements: &[Movement],
        settle: Settle<'_>,
    ) -> Result<Booked> {
        if movements.is_empty() {
            return Ok(Booked::Done(None));
        }
        let legs = movements.iter().enumerate().map(|(n, movement)| {
            let Movement { kind, from, to, currency, amount } = movement;
            let (debit, credit) =
                (AccountId::system(*from, *currency), AccountId::system(*to, *currency));
            let leg = Leg::from(Action::Move { kind: *kind, debit, credit, amount: *amount });
            Leg { with_previous: n > 0, ..leg }
        });
        let companions = vec![settle(0)?];
        let posting = Posting { legs: legs.collect(), companions, trace_id: call.trace, key: None };
        let currencies: Vec<Currency> =
            movements.iter().map(|movement| movement.currency).collect();
        match self.wallets.post_system(posting, &currencies).await? {
            Ok(posted) => Ok(Booked::Done(Some(TransferId(posted.first_seq)))),
            Err(refusal) => Ok(self.refused(refusal)),
        }
    }

    /// Pays the user from the hot wallet, and moves the fee, if any, from the hot wallet to the revenue account.
    async fn pay(
        &self,
        call: &Call<'_>,
        kind: TransferKind,
        currency: Currency,
        amount: Minor,
        fee: Option<Minor>,
        settle: Settle<'_>,
    ) -> Result<Booked> {
        let player = PlayerId::from(call.owner);
        let payout = Payout {
            player: &player,
            currency,
            key: None,
            trace: call.trace,
            may_open_guest: false,
        };
        let hot = AccountId::system(SystemRole::Hot, currency);
        let legs = |wallet| {
            let first = Action::Move { kind, debit: hot, credit: wallet, amount };
            let revenue = AccountId::system(SystemRole::Revenue, currency);
            let fee = fee.filter(|fee| *fee > Minor::ZERO).map(|fee| {
                let kind = TransferKind::Fee;
                let action = Action::Move { kind, debit: hot, credit: revenue, amount: fee };
                Leg { with_previous: true, ..Leg::from(action) }
            });
            std::iter::once(Leg::from(first)).chain(fee).collect()
        };
        let companions = |first| Ok(vec![settle(first)?]);
        match self.wallets.pay_main(&payout, legs, companions).await? {
            Ok(posted) => {
                let transfer = posted.rows.iter().position(|row| row.kind.moves_money());
                let offset = i64::try_from(transfer.unwrap_or_default()).unwrap_or_default();
                Ok(Booked::Done(Some(TransferId(posted.first_seq + offset))))
            }
            Err(refusal) => Ok(self.refused(refusal)),
        }
    }

    fn refused(&self, refusal: PayoutRefusal) -> Booked {
        let reason = match refusal {
            PayoutRefusal::Settled => return Booked::Overtaken,
            PayoutRefusal::InsufficientFunds => {
                self.metrics.wallet_exchange_hot_wallet_short_total.increment(1);
                "the hot wallet is short"
            }
            PayoutRefusal::WalletClosed => "the wallet of the user is closed",
            PayoutRefusal::BalanceTooLarge => "the balance of the user would be too large",
            PayoutRefusal::AmountTooLarge { .. } => "the amount is too large",
            PayoutRefusal::UnknownPlayer => "the user no longer exists",
        };
        Booked::Waiting(reason.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_of_every_definition_holds_the_money() {
        for definition in &DEFINITIONS {
            assert_eq!(definition.steps[0], HOLD);
            let (last, before) = definition.steps.split_last().unwrap();
            assert!(before.iter().all(|step| step.has_undo) && !last.has_undo);
        }
        assert_eq!(newest(Side::Buy).kind, "buy");
    }
}
