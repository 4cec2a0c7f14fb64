//! The synthetic probe's transfer: a minor unit goes from one system account to another and back, so that nothing
//! adds up and no customer is touched.

use super::{Asked, Wallets, refused};
use crate::error::{Error, Result};
use crate::http::auth::Who;
use crate::ledger::account::{AccountId, Role};
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Kind, Leg, Posted};

impl Wallets {
    /// Moves money as everybody's is moved, and tells the transfer that did it.
    pub async fn probe(&self, asked: Asked<'_>) -> Result<Posted> {
        // Whatever a program's key is good for, this does no harm; people have no business here.
        if let Who::User(_) = asked.caller.who() {
            return Err(Error::Forbidden);
        }
        let currency = *self.currencies.all().first().ok_or(Error::NotFound("currency"))?;
        let [here, there] =
            [Role::ProbeA, Role::ProbeB].map(|role| AccountId::system(role, currency));
        let step = |debit, credit| {
            Leg::from(Action::Move { kind: Kind::Probe, debit, credit, amount: Minor(1) })
        };
        let legs = vec![step(here, there), Leg { with_previous: true, ..step(there, here) }];
        let posted = self.ledger.post(asked.posting("probe", &[], legs)).await;
        posted.map_err(|error| refused(&error, Some(currency)))
    }
}
