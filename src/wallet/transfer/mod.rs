//! Transfers between wallets, with a fee for the operator if there is one.

pub mod batch;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Asked, BOOK, Facts, WalletId, Wallets, nothing_posted, refused};
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::ledger::PostError;
use crate::ledger::account::{AccountId, Role};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::{self, Line};
use crate::ledger::transfer::{Action, Kind, Leg, Posted};

/// What somebody wants to be moved.
#[derive(Debug, Clone)]
pub struct Order {
    pub from: WalletId,
    pub to: WalletId,
    pub currency: Currency,
    pub amount: Minor,
    /// On top of the amount, for the operator.
    pub fee: Option<Minor>,
    pub note: Note,
}

/// What the people concerned wrote on it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Note {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memo: Option<String>,
    /// A JSON object, kept as the very text that was given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Box<RawValue>>,
}

impl Note {
    /// As it is stored: nothing when there is nothing.
    fn stored(&self) -> Result<Option<Box<RawValue>>> {
        if self.memo.is_none() && self.metadata.is_none() {
            return Ok(None);
        }
        let stored = serde_json::value::to_raw_value(self);
        stored.map(Some).map_err(|cause| Error::Internal(cause.into()))
    }

    /// As it was stored. What another slice has stored is not ours to tell.
    pub fn read(stored: Option<&str>) -> Self {
        stored.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

/// A transfer that is in the book.
#[derive(Debug, Clone)]
pub struct Transfer {
    pub id: i64,
    pub kind: Kind,
    pub debit: AccountId,
    pub credit: AccountId,
    pub currency: Currency,
    pub amount: Minor,
    pub fee: Minor,
    pub note: Note,
    pub at: OffsetDateTime,
    pub trace_id: Option<Uuid>,
    /// The transfer it undoes or completes.
    pub linked: Option<i64>,
    pub replayed: bool,
}

/// The wallet behind an account, if it is one that people see.
pub fn wallet_of(account: AccountId) -> Option<WalletId> {
    account.held_for().or((account.0 > 0).then_some(account)).map(|account| account.0)
}

impl Wallets {
    /// Moves money from one wallet to another, both parts or neither.
    pub async fn transfer(&self, order: Order, asked: Asked<'_>) -> Result<Transfer> {
        let content = order.content();
        let posting =
            asked.posting("transfer", &content.each_ref().map(String::as_str), order.legs()?);
        let posted = self.ledger.post(posting).await;
        let posted = posted.map_err(|error| refused(&error, Some(order.currency)))?;
        self.posted_transfer(order, &posted, asked.trace).await
    }

    /// The answer to an order that is in the book.
    async fn posted_transfer(
        &self,
        order: Order,
        posted: &Posted,
        trace: Uuid,
    ) -> Result<Transfer> {
        if posted.replayed {
            // The first answer, with the trace of the first request.
            return Ok(Transfer { replayed: true, ..self.get_transfer(posted.first_seq).await? });
        }
        self.count(posted, order.currency);
        Ok(order.posted(posted.first_seq, posted.at, trace))
    }

    /// One transfer, by the id that its answer and every history told.
    pub async fn get_transfer(&self, id: i64) -> Result<Transfer> {
        let lines = self.lines_of(id).await?;
        self.transfer_of(&lines, None).await
    }

    /// A transfer that concerns a wallet which this caller may look at; another is nobody's business.
    pub async fn transfer_seen_by(&self, caller: &Caller, id: i64) -> Result<Transfer> {
        let transfer = self.get_transfer(id).await?;
        for wallet in [transfer.debit, transfer.credit].into_iter().filter_map(wallet_of) {
            if caller.may_see(&*self.facts(wallet).await?).is_ok() {
                return Ok(transfer);
            }
        }
        Err(Error::NotFound("transfer"))
    }

    /// The rows of a transfer, its fee included.
    pub(super) async fn lines_of(&self, id: i64) -> Result<Vec<Line>> {
        let mut db = self.db.acquire("wallet.get_transfer").await?;
        let first = read::lines(&mut db, BOOK, id - 1, id, 1).await?;
        let Some(first) = first.into_iter().next().filter(|line| line.leg == 0) else {
            return Err(Error::NotFound("transfer"));
        };
        let more = i64::from(first.legs) - 1;
        let mut lines = vec![first];
        if more > 0 {
            lines.extend(read::lines(&mut db, BOOK, id, id + more, more).await?);
        }
        Ok(lines)
    }

    /// What these rows mean to people; 404 where no wallet is concerned.
    pub(super) async fn transfer_of(
        &self,
        lines: &[Line],
        facts: Option<&Arc<Facts>>,
    ) -> Result<Transfer> {
        let first = lines.first().and_then(Line::row).zip(lines.first());
        let Some((row, line)) = first else { return Err(nothing_posted()) };
        let wallet = wallet_of(row.debit).or_else(|| wallet_of(row.credit));
        let currency = match (facts, wallet) {
            (Some(facts), _) => facts.currency,
            (None, Some(wallet)) => self.facts(wallet).await?.currency,
            (None, None) => return Err(Error::NotFound("transfer")),
        };
        let fees = lines.iter().filter(|line| line.kind == Kind::Fee.code() && line.leg > 0);
        Ok(Transfer {
            id: line.seq,
            kind: row.kind,
            debit: row.debit,
            credit: row.credit,
            currency,
            amount: row.amount,
            fee: Minor(fees.map(|line| line.amount).sum()),
            note: Note::read(line.metadata.as_deref()),
            at: line.at,
            trace_id: line.trace_id,
            linked: line.linked,
            replayed: false,
        })
    }

    /// The posting that was written under this key, if its content is the same.
    pub(super) async fn replayed(
        &self,
        asked: Asked<'_>,
        operation: &str,
        content: &[&str],
    ) -> Result<Option<Posted>> {
        let Some(key) = asked.key.hashed(asked.caller.name(), operation, content) else {
            return Ok(None);
        };
        self.ledger.find(key).await.map_err(|error: PostError| refused(&error, None))
    }
}

impl Order {
    /// The request as it was understood.
    fn content(&self) -> [String; 6] {
        let Self { from, to, amount, fee, note, .. } = self;
        let metadata = note.metadata.as_ref().map(|raw| raw.get().to_owned());
        [
            from.to_string(),
            to.to_string(),
            amount.0.to_string(),
            fee.map_or(0, |fee| fee.0).to_string(),
            note.memo.clone().unwrap_or_default(),
            metadata.unwrap_or_default(),
        ]
    }

    fn legs(&self) -> Result<Vec<Leg>> {
        let (debit, credit) = (AccountId(self.from), AccountId(self.to));
        let action = Action::Move { kind: Kind::Transfer, debit, credit, amount: self.amount };
        let mut legs = vec![Leg { metadata: self.note.stored()?, ..Leg::from(action) }];
        if let Some(amount) = self.fee {
            let credit = AccountId::system(Role::Revenue, self.currency);
            let fee = Action::Move { kind: Kind::Fee, debit, credit, amount };
            legs.push(Leg { with_previous: true, ..Leg::from(fee) });
        }
        Ok(legs)
    }

    fn posted(self, id: i64, at: OffsetDateTime, trace: Uuid) -> Transfer {
        Transfer {
            id,
            kind: Kind::Transfer,
            debit: AccountId(self.from),
            credit: AccountId(self.to),
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
