//! Changes of a wallet itself: its label, its metadata, whether money may leave it, and its end.

mod sql;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Asked, WalletId, Wallets, companion, refused};
use crate::error::{Error, Result};
use crate::ledger::account::AccountId;
use crate::ledger::transfer::{Action, Leg};
use crate::ledger::{PostError, Refusal};

pub use sql::{CHANGED, CLOSED};

/// Two changes of one wallet in the same moment: one of them has to come again.
const OVERTAKEN: &str = "another change came first";

/// What is to become of a wallet; what is absent stays as it is.
#[derive(Debug, Default)]
pub struct Changes {
    /// Inside: nothing takes the label away.
    pub label: Option<Option<String>>,
    pub metadata: Option<Option<Box<RawValue>>>,
    pub freeze: Option<bool>,
}

/// A row of names, as the database takes it.
#[derive(Serialize)]
struct Changed<'a> {
    id: WalletId,
    sets_label: bool,
    label: Option<&'a str>,
    sets_metadata: bool,
    metadata: Option<&'a str>,
}

#[derive(Serialize)]
struct Closed {
    id: WalletId,
}

impl Changes {
    fn row(&self, id: WalletId) -> Changed<'_> {
        Changed {
            id,
            sets_label: self.label.is_some(),
            label: self.label.as_ref().and_then(|label| label.as_deref()),
            sets_metadata: self.metadata.is_some(),
            metadata: self.metadata.as_ref().and_then(|raw| raw.as_ref()).map(|raw| raw.get()),
        }
    }
}

impl Wallets {
    /// All of these changes, or none. A wallet that is frozen already is as it should be.
    pub async fn change(&self, id: WalletId, changes: &Changes, asked: Asked<'_>) -> Result<()> {
        let facts = self.facts(id).await?;
        asked.caller.may_spend(&facts)?;
        if changes.freeze == Some(false) {
            asked.caller.may_unfreeze(&facts)?;
        }
        let account = AccountId(id);
        if let Some(freeze) = changes.freeze {
            let action =
                if freeze { Action::Freeze { account } } else { Action::Unfreeze { account } };
            let row = changes.row(id);
            let content =
                serde_json::to_string(&row).map_err(|cause| Error::Internal(cause.into()))?;
            let content = [content.as_str(), if freeze { "freeze" } else { "unfreeze" }];
            let mut posting = asked.posting("change", &content, vec![Leg::from(action)]);
            if changes.label.is_some() || changes.metadata.is_some() {
                posting.companions.push(companion(&CHANGED, &row, OVERTAKEN)?);
            }
            match self.ledger.post(posting).await {
                Ok(_) => return Ok(()),
                Err(PostError::Refused(
                    Refusal::AccountFrozen(_) | Refusal::AccountNotFrozen(_),
                )) => {}
                Err(PostError::Refused(Refusal::Companion(OVERTAKEN))) => {
                    return Err(Error::Overloaded);
                }
                Err(error) => return Err(refused(&error, None)),
            }
        }
        let took =
            sql::change(&mut *self.db.acquire("wallet.change").await?, &changes.row(id)).await?;
        if took { Ok(()) } else { Err(Error::WalletClosed) }
    }

    /// Closes a wallet for good. One that is closed already is as it should be.
    pub async fn close(&self, id: WalletId, asked: Asked<'_>) -> Result<()> {
        asked.caller.may_spend(&*self.facts(id).await?)?;
        let action = Action::Close { account: AccountId(id) };
        let mut posting = asked.posting("close", &[&id.to_string()], vec![Leg::from(action)]);
        posting.companions.push(companion(&CLOSED, &Closed { id }, OVERTAKEN)?);
        match self.ledger.post(posting).await {
            Ok(_) | Err(PostError::Refused(Refusal::AccountClosed(_))) => Ok(()),
            Err(error) => Err(refused(&error, None)),
        }
    }
}
