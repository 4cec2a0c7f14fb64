//! Updates of a wallet: changing its label and metadata, freezing, unfreezing and closing it.

mod sql;

use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Connection;
use uuid::Uuid;

use super::read::{WalletBalance, WalletDetail, balance_at};
use super::{RequestMeta, Wallets, companion, from_post_error};
use crate::error::{Error, Result};
use crate::idempotency_key::HashedKey;
use crate::ids::WalletId;
use crate::ledger::account::AccountState;
use crate::ledger::read;
use crate::ledger::transfer::{Action, Leg};
use crate::ledger::{PostError, Refusal};

pub use self::sql::{CHANGED, CLOSED, RECORDED};

/// Refusal of an update because another update of the same wallet came first.
const OVERTAKEN: &str = "another update came first";

/// Members of a wallet to update. Absent members stay unchanged.
#[derive(Debug, Default)]
pub struct WalletChanges {
    /// New label; `Some(None)` removes the label.
    pub label: Option<Option<String>>,
    /// New metadata; `Some(None)` removes the metadata.
    pub metadata: Option<Option<Box<RawValue>>>,
    pub freeze: Option<bool>,
}

/// Input of the companion [`CHANGED`] (a statement in the transaction of a posting): the new label and metadata of a
/// wallet.
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
    /// Returns the parsed request as text, to detect an idempotency key that is reused for a different request.
    fn content(&self, id: WalletId) -> Result<[String; 2]> {
        let row = serde_json::to_string(&self.row(id));
        let row = row.map_err(|cause| Error::Internal(cause.into()))?;
        let freeze = match self.freeze {
            Some(true) => "freeze",
            Some(false) => "unfreeze",
            None => "",
        };
        Ok([row, freeze.to_owned()])
    }

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

/// A wallet as it was right after an update. A repeated request gets the same result, even if the wallet has changed
/// since.
pub struct UpdatedWallet {
    pub balance: WalletBalance,
    pub detail: WalletDetail,
    pub replayed: bool,
}

/// Input of the companion [`RECORDED`] (a statement in the transaction of a posting): the result of an update, for the
/// response to a repeated request.
#[derive(Serialize)]
struct RecordedUpdate {
    key_hash: Uuid,
    content_hash: Uuid,
    wallet: WalletId,
    state: &'static str,
}

impl Wallets {
    /// Applies all of these changes, or none. Freezing a frozen wallet succeeds.
    pub async fn update(
        &self,
        id: WalletId,
        changes: &WalletChanges,
        meta: RequestMeta<'_>,
    ) -> Result<UpdatedWallet> {
        let record = self.record(id).await?;
        meta.caller.require_spend(&record)?;
        if changes.freeze == Some(false) {
            meta.caller.require_unfreeze(&record)?;
        }
        let content = changes.content(id)?;
        let content = content.each_ref().map(String::as_str);
        let key = meta.key.hashed(meta.caller.name(), "change", &content);
        if let Some(updated) = self.find_recorded(key).await? {
            return Ok(UpdatedWallet { replayed: true, ..updated });
        }
        let is_new = match changes.freeze {
            Some(freeze) => self.post_update(id, freeze, changes, &content, meta).await?,
            None => self.write_update(id, changes, key).await?,
        };
        if let Some(updated) = self.find_recorded(key).await? {
            return Ok(UpdatedWallet { replayed: !is_new, ..updated });
        }
        let (balance, detail) = self.find_detail(id).await?;
        Ok(UpdatedWallet { balance, detail, replayed: !is_new })
    }

    /// Freezes or unfreezes a wallet by a posting to the ledger. The same posting applies the other requested changes.
    /// Returns false if an earlier request with the same idempotency key has already made the update.
    async fn post_update(
        &self,
        id: WalletId,
        freeze: bool,
        changes: &WalletChanges,
        content: &[&str],
        meta: RequestMeta<'_>,
    ) -> Result<bool> {
        let account = id.into();
        let action = if freeze { Action::Freeze { account } } else { Action::Unfreeze { account } };
        let mut posting = meta.posting("change", content, vec![Leg::from(action)]);
        let key = posting.key;
        if changes.label.is_some() || changes.metadata.is_some() {
            posting.companions.push(companion(&CHANGED, &changes.row(id), OVERTAKEN)?);
        }
        if let Some(HashedKey { hash, content }) = key {
            let state = if freeze { AccountState::Frozen } else { AccountState::Open };
            let (key_hash, content_hash, state) = (hash, content, state.name());
            let row = RecordedUpdate { key_hash, content_hash, wallet: id, state };
            posting.companions.push(companion(&RECORDED, &row, OVERTAKEN)?);
        }
        match self.ledger.post(posting).await {
            Ok(posted) => Ok(!posted.replayed),
            Err(PostError::Refused(Refusal::AccountFrozen(_) | Refusal::AccountNotFrozen(_))) => {
                self.write_update(id, changes, key).await
            }
            Err(PostError::Refused(Refusal::Companion(OVERTAKEN))) => Err(Error::Overloaded),
            Err(error) => Err(from_post_error(&error, None)),
        }
    }

    /// Updates only the row of a wallet, without a posting. Returns false if another request with the same idempotency
    /// key came first.
    async fn write_update(
        &self,
        id: WalletId,
        changes: &WalletChanges,
        key: Option<HashedKey>,
    ) -> Result<bool> {
        let mut db = self.db.acquire("wallet.update").await?;
        let mut tx = db.begin().await?;
        if !sql::update(&mut tx, &changes.row(id)).await? {
            return Err(Error::WalletClosed);
        }
        if let Some(key) = key {
            let state = read::state(&mut tx, id.into()).await?;
            let seq = read::head_for(&mut tx, id.into()).await?;
            if !sql::record(&mut tx, key, id, seq, state.name()).await? {
                tx.rollback().await?;
                return Ok(false);
            }
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Returns the recorded result of an earlier update with this idempotency key.
    async fn find_recorded(&self, key: Option<HashedKey>) -> Result<Option<UpdatedWallet>> {
        let Some(key) = key else { return Ok(None) };
        let mut db = self.db.acquire("wallet.find_update").await?;
        let Some(row) = sql::recorded(&mut db, key.hash).await? else { return Ok(None) };
        key.require_same_content(Some(row.content_hash))?;
        let record = self.record(row.wallet).await?;
        let balance = balance_at(&mut db, row.wallet, record, row.seq).await?;
        let detail = WalletDetail {
            state: row.state.parse()?,
            created_at: row.created_at,
            closed_at: None,
            label: row.label,
            metadata: row.metadata,
        };
        Ok(Some(UpdatedWallet { balance, detail, replayed: false }))
    }

    /// Closes a wallet for good. Closing a closed wallet succeeds. Returns whether an earlier request with the same
    /// idempotency key has closed the wallet.
    pub async fn close(&self, id: WalletId, meta: RequestMeta<'_>) -> Result<bool> {
        meta.caller.require_spend(&*self.record(id).await?)?;
        let action = Action::Close { account: id.into() };
        let mut posting = meta.posting("close", &[&id.to_string()], vec![Leg::from(action)]);
        posting.companions.push(companion(&CLOSED, &Closed { id }, OVERTAKEN)?);
        match self.ledger.post(posting).await {
            Ok(posted) => Ok(posted.replayed),
            Err(PostError::Refused(Refusal::AccountClosed(_))) => Ok(false),
            Err(error) => Err(from_post_error(&error, None)),
        }
    }
}
