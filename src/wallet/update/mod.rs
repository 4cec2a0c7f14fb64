//! Updates of a wallet itself: label, metadata, freezing, closing.

mod sql;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{RequestMeta, Wallets, companion, from_post_error};
use crate::error::{Error, Result};
use crate::ids::WalletId;
use crate::ledger::transfer::{Action, Leg};
use crate::ledger::{PostError, Refusal};

pub use sql::{CHANGED, CLOSED};

/// Refusal of an update that another one of the same wallet overtook.
const OVERTAKEN: &str = "another update came first";

/// Members of a wallet to update; absent ones stay unchanged.
#[derive(Debug, Default)]
pub struct WalletChanges {
    /// `Some(None)` removes the label.
    pub label: Option<Option<String>>,
    /// `Some(None)` removes the metadata.
    pub metadata: Option<Option<Box<RawValue>>>,
    pub freeze: Option<bool>,
}

/// The row of the companion.
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

impl WalletChanges {
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
    /// Applies all of these changes, or none. Freezing a frozen wallet succeeds.
    pub async fn update(
        &self,
        id: WalletId,
        changes: &WalletChanges,
        meta: RequestMeta<'_>,
    ) -> Result<()> {
        let record = self.record(id).await?;
        meta.caller.require_spend(&record)?;
        if changes.freeze == Some(false) {
            meta.caller.require_unfreeze(&record)?;
        }
        let account = id.into();
        if let Some(freeze) = changes.freeze {
            let action =
                if freeze { Action::Freeze { account } } else { Action::Unfreeze { account } };
            let row = changes.row(id);
            let content =
                serde_json::to_string(&row).map_err(|cause| Error::Internal(cause.into()))?;
            let content = [content.as_str(), if freeze { "freeze" } else { "unfreeze" }];
            let mut posting = meta.posting("change", &content, vec![Leg::from(action)]);
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
                Err(error) => return Err(from_post_error(&error, None)),
            }
        }
        let took =
            sql::update(&mut *self.db.acquire("wallet.update").await?, &changes.row(id)).await?;
        if took { Ok(()) } else { Err(Error::WalletClosed) }
    }

    /// Closes a wallet for good. Closing a closed wallet succeeds.
    pub async fn close(&self, id: WalletId, meta: RequestMeta<'_>) -> Result<()> {
        meta.caller.require_spend(&*self.record(id).await?)?;
        let action = Action::Close { account: id.into() };
        let mut posting = meta.posting("close", &[&id.to_string()], vec![Leg::from(action)]);
        posting.companions.push(companion(&CLOSED, &Closed { id }, OVERTAKEN)?);
        match self.ledger.post(posting).await {
            Ok(_) | Err(PostError::Refused(Refusal::AccountClosed(_))) => Ok(()),
            Err(error) => Err(from_post_error(&error, None)),
        }
    }
}
