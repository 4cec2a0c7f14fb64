//! The test transfer of the canary, a monitor that uses the API like a customer: one minor unit moves between two
//! system accounts and back, so that no customer's balance changes.

use super::{RequestMeta, Wallets, from_post_error};
use crate::auth::Principal;
use crate::error::{Error, Result};
use crate::ids::TransferId;
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, TransferKind};

/// The test transfer that a canary request made.
#[derive(Debug, Clone, Copy)]
pub struct CanaryTransfer {
    pub id: TransferId,
    pub replayed: bool,
}

impl Wallets {
    /// Posts the test transfer of the canary in the same way as customer transfers.
    pub async fn post_canary(&self, meta: RequestMeta<'_>) -> Result<CanaryTransfer> {
        // The transfer is harmless, so any API key is sufficient; signed-in users are refused.
        if let Principal::User(_) = meta.caller.principal() {
            return Err(Error::Forbidden);
        }
        let currency = *self.currencies.all().first().ok_or(Error::NotFound("currency"))?;
        let [here, there] = [SystemRole::CanaryA, SystemRole::CanaryB]
            .map(|role| AccountId::system(role, currency));
        let step = |debit, credit| {
            let kind = TransferKind::Probe;
            Leg::from(Action::Move { kind, debit, credit, amount: Minor(1) })
        };
        let legs = vec![step(here, there), Leg { with_previous: true, ..step(there, here) }];
        let posted = self.ledger.post(meta.posting("probe", &[], legs)).await;
        let posted = posted.map_err(|error| from_post_error(&error, Some(currency)))?;
        Ok(CanaryTransfer { id: TransferId(posted.first_seq), replayed: posted.replayed })
    }
}
