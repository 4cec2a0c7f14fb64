//! Transfers between wallets, with an optional fee for the operator.

mod batch;
mod lookup;
mod sql;

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{RequestMeta, WalletRecord, Wallets, from_post_error};
use crate::auth::Caller;
use crate::error::{Error, FieldError, Result};
use crate::ids::{TransferId, WalletId};
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::companion::Companion;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::BookRow;
use crate::ledger::transfer::{Action, Leg, Posted, TransferKind};

pub(super) use self::batch::KEY_CLAIMED;
pub use self::batch::TRANSFERS_MAX;
pub use self::sql::BATCH_CLAIMED;

/// A transfer as the client requests it. Its amounts are decimals whose currency is not known yet.
#[derive(Debug)]
pub struct TransferRequest<'a> {
    pub from: WalletId,
    pub to: WalletId,
    pub amount: &'a str,
    /// Fee for the operator, on top of the amount.
    pub fee: Option<&'a str>,
    pub note: Note,
}

/// A transfer whose wallets exist and whose amounts are valid in their currency.
#[derive(Debug)]
struct ResolvedTransfer {
    from: WalletId,
    to: WalletId,
    currency: Currency,
    amount: Minor,
    fee: Option<Minor>,
    note: Note,
}

/// Memo and metadata of a transfer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Note {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memo: Option<String>,
    /// A JSON object, kept as the text that the client sent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Box<RawValue>>,
}

impl Note {
    /// Returns the note (memo and metadata) as text, to detect an idempotency key that is reused for a different
    /// request.
    pub(super) fn content(&self) -> [&str; 2] {
        let metadata = self.metadata.as_ref().map(|raw| raw.get());
        [self.memo.as_deref().unwrap_or_default(), metadata.unwrap_or_default()]
    }

    /// Adds the note (memo and metadata) to `content`, the text of a request that is compared if its idempotency key is
    /// reused. An empty note adds nothing, so that a repeated request still matches an idempotency key that was stored
    /// before notes existed.
    pub(super) fn added_to<'a>(&'a self, content: &[&'a str]) -> SmallVec<[&'a str; 5]> {
        let mut content = SmallVec::from_slice(content);
        if self.memo.is_some() || self.metadata.is_some() {
            content.extend(self.content());
        }
        content
    }

    /// Returns the note (memo and metadata) as it is stored with a transfer; `None` for an empty note.
    pub(super) fn to_stored(&self) -> Result<Option<Box<RawValue>>> {
        if self.memo.is_none() && self.metadata.is_none() {
            return Ok(None);
        }
        let stored = serde_json::value::to_raw_value(self);
        stored.map(Some).map_err(|cause| Error::Internal(cause.into()))
    }

    /// Parses the note (memo and metadata) that is stored with a transfer. Returns an empty note if the stored data is
    /// not a note but the data of another module.
    pub fn from_stored(stored: Option<&str>) -> Self {
        stored.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

/// A transfer in the ledger.
#[derive(Debug, Clone)]
pub struct Transfer {
    pub id: TransferId,
    pub kind: TransferKind,
    pub debit: AccountId,
    pub credit: AccountId,
    pub currency: Currency,
    pub amount: Minor,
    pub fee: Minor,
    pub note: Note,
    pub at: OffsetDateTime,
    pub trace_id: Option<Uuid>,
    /// The earlier transfer, such as a hold, that this transfer completes or refunds.
    pub linked: Option<TransferId>,
    pub replayed: bool,
}

/// Returns the wallet that an account or a hold account belongs to; `None` for a system account.
pub fn wallet_of(account: AccountId) -> Option<WalletId> {
    let account = account.held_for().or((account.0 > 0).then_some(account));
    account.map(|account| WalletId(account.0))
}

/// Returns the wallets that a row of the ledger concerns, each only once. A transfer between wallets in two parts
/// (books) of the ledger has a row in both books, and each row concerns the wallet in its own book.
pub fn wallets_of(row: &BookRow) -> Vec<WalletId> {
    let mut wallets: Vec<WalletId> = row.own_accounts().filter_map(wallet_of).collect();
    wallets.dedup();
    wallets
}

impl Wallets {
    /// Moves money from one wallet to another.
    pub async fn transfer(
        &self,
        request: TransferRequest<'_>,
        meta: RequestMeta<'_>,
    ) -> Result<Transfer> {
        let records = self.find_records([request.from, request.to].into_iter()).await?;
        let transfer = request.resolve("", &records, meta.caller)?;
        let pointers = transfer.pointers("");
        let posted = self.post_transfer("transfer", transfer, None, meta).await;
        posted.map_err(|error| error.with_pointer(pointers))
    }

    /// Posts one transfer. `operation` is part of its idempotency key.
    async fn post_transfer(
        &self,
        operation: &str,
        transfer: ResolvedTransfer,
        companion: Option<Companion>,
        meta: RequestMeta<'_>,
    ) -> Result<Transfer> {
        let content = transfer.content();
        let content = content.each_ref().map(String::as_str);
        let mut posting = meta.posting(operation, &content, transfer.legs()?);
        posting.companions.extend(companion);
        let posted = self.ledger.post(posting).await;
        let posted = posted.map_err(|error| from_post_error(&error, Some(transfer.currency)))?;
        self.posted_transfer(transfer, &posted, meta.trace).await
    }

    async fn posted_transfer(
        &self,
        transfer: ResolvedTransfer,
        posted: &Posted,
        trace: Uuid,
    ) -> Result<Transfer> {
        if posted.replayed {
            // A replay returns the transfer of the first request, with the trace of that request.
            return self.replayed_transfer(posted.first_seq).await;
        }
        self.count_posted(posted, transfer.currency);
        Ok(transfer.into_posted(posted.first_seq, posted.at, trace))
    }
}

impl TransferRequest<'_> {
    /// Checks the caller's access and parses the amounts. `at` is the JSON pointer of this transfer in the request
    /// body.
    fn resolve(
        self,
        at: &str,
        records: &HashMap<WalletId, Arc<WalletRecord>>,
        caller: &Caller,
    ) -> Result<ResolvedTransfer> {
        let record = |wallet: &WalletId, name| {
            let missing = || Error::NotFound("wallet").of_wallet(wallet.0);
            let pointer = |_| Some(format!("{at}/{name}"));
            records.get(wallet).ok_or_else(|| missing().with_pointer(pointer))
        };
        let (from, to) = (record(&self.from, "from")?, record(&self.to, "to")?);
        caller.require_spend(from)?;
        if from.currency != to.currency {
            return Err(Error::CurrencyMismatch);
        }
        let currency = from.currency;
        let field = |name: &str, cause: crate::ledger::money::AmountError| FieldError {
            pointer: format!("{at}/{name}"),
            detail: cause.to_string(),
        };
        let amount = Minor::parse_amount(self.amount, currency).map_err(|e| field("amount", e));
        let fee = self.fee.map(|fee| Minor::parse_balance(fee, currency));
        let fee = fee.transpose().map_err(|e| field("fee", e));
        match (amount, fee) {
            (Ok(amount), Ok(fee)) => {
                let fee = fee.filter(|fee| *fee > Minor::ZERO);
                let Self { from, to, note, .. } = self;
                Ok(ResolvedTransfer { from, to, currency, amount, fee, note })
            }
            (amount, fee) => {
                Err(Error::Invalid(amount.err().into_iter().chain(fee.err()).collect()))
            }
        }
    }
}

impl ResolvedTransfer {
    /// Returns the parsed request as text, to detect an idempotency key that is reused for a different request.
    fn content(&self) -> [String; 6] {
        let Self { from, to, amount, fee, note, .. } = self;
        let [memo, metadata] = note.content().map(str::to_owned);
        let fee = fee.map_or(0, |fee| fee.0);
        [from.to_string(), to.to_string(), amount.0.to_string(), fee.to_string(), memo, metadata]
    }

    /// Returns a function that maps a wallet's id to the JSON pointer of the member that contains it. `at` is the JSON
    /// pointer of this transfer in the request body.
    fn pointers(&self, at: &str) -> impl FnOnce(i64) -> Option<String> + use<> {
        let (from, to, at) = (self.from, self.to, at.to_owned());
        move |wallet| match WalletId(wallet) {
            wallet if wallet == from => Some(format!("{at}/from")),
            wallet if wallet == to => Some(format!("{at}/to")),
            _ => None,
        }
    }

    fn legs(&self) -> Result<Vec<Leg>> {
        let (debit, credit) = (self.from.into(), self.to.into());
        let kind = TransferKind::Transfer;
        let action = Action::Move { kind, debit, credit, amount: self.amount };
        let mut legs = vec![Leg { metadata: self.note.to_stored()?, ..Leg::from(action) }];
        if let Some(amount) = self.fee {
            let credit = AccountId::system(SystemRole::Revenue, self.currency);
            let fee = Action::Move { kind: TransferKind::Fee, debit, credit, amount };
            legs.push(Leg { with_previous: true, ..Leg::from(fee) });
        }
        Ok(legs)
    }

    fn into_posted(self, seq: i64, at: OffsetDateTime, trace: Uuid) -> Transfer {
        Transfer {
            id: TransferId(seq),
            kind: TransferKind::Transfer,
            debit: self.from.into(),
            credit: self.to.into(),
            currency: self.currency,
            amount: self.amount,
            fee: self.fee.unwrap_or_default(),
            note: self.note,
            at,
            trace_id: Some(trace),
            linked: None,
            replayed: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_note_has_the_content_that_it_had_before_notes() {
        let content = ["1", "100"];
        let memo = |memo: &str| Note { memo: Some(memo.to_owned()), metadata: None };

        assert_eq!(Note::default().added_to(&content)[..], content);
        assert_eq!(memo("tea").added_to(&content)[..], ["1", "100", "tea", ""]);
        assert_ne!(memo("").added_to(&content)[..], content);
    }
}
