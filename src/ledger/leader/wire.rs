//! Converts postings and replies to the messages that processes exchange, and back.

use foldhash::HashMap;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

use super::proto::post_reply::Outcome;
use super::proto::refusal::Reason;
use super::proto::{self, Failure, PostReply as Reply};
use crate::idempotency_key::HashedKey;
use crate::ledger::account::AccountId;
use crate::ledger::companion::{Companion, CompanionKind};
use crate::ledger::decide::Refusal;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, Posted, Posting, TransferKind, TransferRow};
use crate::ledger::writer::{PostError, PostOutcome, PostReply};
use crate::secret::digest;

/// Version of the messages. A process that does not know a new field would write a different posting than the sender
/// meant, so every change to the messages needs a new version.
pub(super) const VERSION: u32 = 2;

/// Placeholders for the refusal texts of a posting's companions (rows of other modules), by index. The leader does not
/// have the sender's texts, so it returns the index, which the sender replaces with the text.
const COMPANION_REFUSALS: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];

/// The kinds of companions (rows of other modules) that this program can write, by the digest of their SQL statement.
pub(super) struct CompanionRegistry(HashMap<Uuid, &'static CompanionKind>);

impl CompanionRegistry {
    pub(super) fn new(kinds: &[&'static CompanionKind]) -> Self {
        Self(kinds.iter().map(|kind| (statement_digest(kind), *kind)).collect())
    }
}

fn statement_digest(kind: &CompanionKind) -> Uuid {
    digest(&[kind.name, kind.sql])
}

/// Encodes a posting, which must have an idempotency key.
pub(super) fn encode_posting(posting: &Posting) -> proto::Posting {
    let bytes = |id: Uuid| id.as_bytes().to_vec();
    let companions = posting.companions.iter().map(|companion| proto::Companion {
        statement: bytes(statement_digest(companion.kind)),
        members: companion.members().to_owned(),
    });
    proto::Posting {
        key_hash: posting.key.map(|key| bytes(key.hash)).unwrap_or_default(),
        key_content: posting.key.map(|key| bytes(key.content)).unwrap_or_default(),
        trace_id: posting.trace_id.map(bytes).unwrap_or_default(),
        legs: posting.legs.iter().map(encode_leg).collect(),
        companions: companions.collect(),
    }
}

fn encode_leg(leg: &Leg) -> proto::Leg {
    let (debit, credit, currency) = match leg.action {
        Action::Move { debit, credit, .. } => (debit, credit, String::new()),
        Action::Open { account, currency } => (account, account, format!("{currency:?}")),
        Action::Close { account } | Action::Freeze { account } | Action::Unfreeze { account } => {
            (account, account, String::new())
        }
    };
    proto::Leg {
        kind: leg.action.kind().code().into(),
        debit: debit.0,
        credit: credit.0,
        amount: leg.action.amount().0,
        currency,
        with_previous: leg.with_previous,
        linked: leg.linked,
        metadata: leg.metadata.as_ref().map(|metadata| metadata.get().to_owned()),
    }
}

/// Decodes a posting; `None` if this version of the program cannot write it.
pub(super) fn decode_posting(
    posting: proto::Posting,
    registry: &CompanionRegistry,
) -> Option<Posting> {
    let proto::Posting { key_hash, key_content, trace_id, legs, companions } = posting;
    let uuid = |bytes: &[u8]| Uuid::from_slice(bytes).ok();
    let key = HashedKey { hash: uuid(&key_hash)?, content: uuid(&key_content)? };
    let trace_id = if trace_id.is_empty() { None } else { Some(uuid(&trace_id)?) };
    let companions = companions.into_iter().enumerate().map(|(index, companion)| {
        let kind = registry.0.get(&uuid(&companion.statement)?)?;
        let refusal = COMPANION_REFUSALS.get(index)?;
        Some(Companion::from_members(kind, companion.members, refusal))
    });
    Some(Posting {
        key: Some(key),
        legs: legs.into_iter().map(decode_leg).collect::<Option<_>>()?,
        companions: companions.collect::<Option<_>>()?,
        trace_id,
    })
}

fn decode_leg(leg: proto::Leg) -> Option<Leg> {
    let account = AccountId(leg.debit);
    let action = match TransferKind::from_code(leg.kind.try_into().ok()?)? {
        TransferKind::Open => Action::Open { account, currency: leg.currency.parse().ok()? },
        TransferKind::Close => Action::Close { account },
        TransferKind::Freeze => Action::Freeze { account },
        TransferKind::Unfreeze => Action::Unfreeze { account },
        kind => Action::Move {
            kind,
            debit: account,
            credit: AccountId(leg.credit),
            amount: Minor(leg.amount),
        },
    };
    let metadata = leg.metadata.map(RawValue::from_string).transpose().ok()?;
    Some(Leg { action, with_previous: leg.with_previous, linked: leg.linked, metadata })
}

/// The reply to a posting that the leader cannot write.
pub(super) fn unsupported() -> Reply {
    Reply { outcome: Some(Outcome::Failure(Failure::Unsupported.into())) }
}

pub(super) fn encode_reply(reply: &PostReply) -> Reply {
    let outcome = match reply {
        Ok(PostOutcome::Posted(posted)) => Outcome::Posted(encode_posted(posted)),
        Ok(PostOutcome::Replay { first_seq, last_seq }) => {
            Outcome::Replay(proto::Replay { first_seq: *first_seq, last_seq: *last_seq })
        }
        Err(PostError::Refused(refusal)) => Outcome::Refusal(encode_refusal(refusal)),
        Err(PostError::Overloaded) => Outcome::Failure(Failure::Overloaded.into()),
        Err(PostError::Unavailable) => Outcome::Failure(Failure::Unavailable.into()),
        Err(PostError::Unknown) => Outcome::Failure(Failure::Unknown.into()),
        // `Archived` does not occur here, because only the caller's own process reads archived postings.
        Err(PostError::Internal | PostError::Archived { .. }) => {
            Outcome::Failure(Failure::Internal.into())
        }
    };
    Reply { outcome: Some(outcome) }
}

fn encode_posted(posted: &Posted) -> proto::Posted {
    let rows = posted.rows.iter().map(|row| proto::Row {
        kind: row.kind.code().into(),
        leg: row.leg.into(),
        legs: row.legs.into(),
        debit: row.debit.0,
        credit: row.credit.0,
        amount: row.amount.0,
        debit_balance: row.debit_balance.0,
        credit_balance: row.credit_balance.0,
    });
    let held = posted.held.iter();
    let held = held.map(|(account, held)| proto::Held { account: account.0, balance: held.0 });
    proto::Posted {
        first_seq: posted.first_seq,
        last_seq: posted.last_seq,
        at: i64::try_from(posted.at.unix_timestamp_nanos() / 1_000).unwrap_or_default(),
        replayed: posted.replayed,
        rows: rows.collect(),
        held: held.collect(),
    }
}

fn encode_refusal(refusal: &Refusal) -> proto::Refusal {
    let of = |reason: Reason| proto::Refusal { reason: reason.into(), ..Default::default() };
    let on = |reason, account: &AccountId| proto::Refusal { account: account.0, ..of(reason) };
    match refusal {
        Refusal::NoSuchAccount(account) => on(Reason::NoSuchAccount, account),
        Refusal::AccountExists(account) => on(Reason::AccountExists, account),
        Refusal::AccountClosed(account) => on(Reason::AccountClosed, account),
        Refusal::AccountFrozen(account) => on(Reason::AccountFrozen, account),
        Refusal::AccountNotFrozen(account) => on(Reason::AccountNotFrozen, account),
        Refusal::AccountNotEmpty(account) => on(Reason::AccountNotEmpty, account),
        Refusal::BalanceTooLarge(account) => on(Reason::BalanceTooLarge, account),
        Refusal::InsufficientFunds { account, available, required } => proto::Refusal {
            available: available.0,
            required: required.0,
            ..on(Reason::InsufficientFunds, account)
        },
        Refusal::AmountTooLarge { limit } => {
            proto::Refusal { required: limit.0, ..of(Reason::AmountTooLarge) }
        }
        Refusal::CurrencyMismatch(account, other) => {
            proto::Refusal { other_account: other.0, ..on(Reason::CurrencyMismatch, account) }
        }
        Refusal::KeyReused => of(Reason::KeyReused),
        Refusal::Companion(text) => {
            let index = COMPANION_REFUSALS.iter().position(|refusal| refusal == text);
            let companion = index.and_then(|index| index.try_into().ok()).unwrap_or_default();
            proto::Refusal { companion, ..of(Reason::Companion) }
        }
        Refusal::InLeg { leg, refusal } => {
            proto::Refusal { leg: u64::try_from(*leg).ok(), ..encode_refusal(refusal) }
        }
        Refusal::Malformed(_) => of(Reason::Malformed),
    }
}

/// Outcome of a posting at the leader.
pub(super) enum LeaderReply {
    Decided(PostReply),
    /// The leader did not write the posting, because it cannot decode the posting or has no connection to its database.
    NotWritten,
    /// The leader does not know whether the posting was written, or its reply cannot be decoded.
    Unknown,
}

/// Decodes the reply to a posting.
pub(super) fn decode_reply(reply: Reply, posting: &Posting) -> LeaderReply {
    let decided = match reply.outcome {
        Some(Outcome::Posted(posted)) => {
            decode_posted(posted).map(|posted| Ok(PostOutcome::Posted(posted)))
        }
        Some(Outcome::Replay(proto::Replay { first_seq, last_seq })) => {
            Some(Ok(PostOutcome::Replay { first_seq, last_seq }))
        }
        Some(Outcome::Refusal(refusal)) => {
            decode_refusal(&refusal, posting).map(|refusal| Err(refusal.into()))
        }
        Some(Outcome::Failure(failure)) => match Failure::try_from(failure) {
            Ok(Failure::Overloaded) => Some(Err(PostError::Overloaded)),
            Ok(Failure::Internal) => Some(Err(PostError::Internal)),
            Ok(Failure::Unavailable | Failure::Unsupported) => return LeaderReply::NotWritten,
            _ => None,
        },
        None => None,
    };
    decided.map_or(LeaderReply::Unknown, LeaderReply::Decided)
}

fn decode_posted(posted: proto::Posted) -> Option<Posted> {
    let rows = posted.rows.into_iter().map(|row| {
        Some(TransferRow {
            kind: TransferKind::from_code(row.kind.try_into().ok()?)?,
            leg: row.leg.try_into().ok()?,
            legs: row.legs.try_into().ok()?,
            debit: AccountId(row.debit),
            credit: AccountId(row.credit),
            amount: Minor(row.amount),
            debit_balance: Minor(row.debit_balance),
            credit_balance: Minor(row.credit_balance),
        })
    });
    let held = posted.held.into_iter();
    Some(Posted {
        first_seq: posted.first_seq,
        last_seq: posted.last_seq,
        at: OffsetDateTime::from_unix_timestamp_nanos(i128::from(posted.at) * 1_000).ok()?,
        replayed: posted.replayed,
        rows: rows.collect::<Option<_>>()?,
        held: held.map(|held| (AccountId(held.account), Minor(held.balance))).collect(),
    })
}

fn decode_refusal(refusal: &proto::Refusal, posting: &Posting) -> Option<Refusal> {
    let account = AccountId(refusal.account);
    let decoded = match refusal.reason() {
        Reason::Unspecified => return None,
        Reason::NoSuchAccount => Refusal::NoSuchAccount(account),
        Reason::AccountExists => Refusal::AccountExists(account),
        Reason::AccountClosed => Refusal::AccountClosed(account),
        Reason::AccountFrozen => Refusal::AccountFrozen(account),
        Reason::AccountNotFrozen => Refusal::AccountNotFrozen(account),
        Reason::AccountNotEmpty => Refusal::AccountNotEmpty(account),
        Reason::InsufficientFunds => Refusal::InsufficientFunds {
            account,
            available: Minor(refusal.available),
            required: Minor(refusal.required),
        },
        Reason::BalanceTooLarge => Refusal::BalanceTooLarge(account),
        Reason::AmountTooLarge => Refusal::AmountTooLarge { limit: Minor(refusal.required) },
        Reason::CurrencyMismatch => {
            Refusal::CurrencyMismatch(account, AccountId(refusal.other_account))
        }
        Reason::KeyReused => Refusal::KeyReused,
        Reason::Companion => {
            let index = usize::try_from(refusal.companion).ok()?;
            Refusal::Companion(posting.companions.get(index)?.refusal)
        }
        Reason::Malformed => Refusal::Malformed("the leader of the book refused it"),
    };
    Some(match refusal.leg {
        Some(leg) => Refusal::InLeg { leg: leg.try_into().ok()?, refusal: Box::new(decoded) },
        None => decoded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::currency::Currency;

    static KIND: CompanionKind =
        CompanionKind { name: "test", sql: "with took as (select 0 as n)" };

    fn posting() -> Posting {
        let (a, b) = (AccountId(7), AccountId(-1_099_511_627_783));
        let euro = Currency::new("EUR", 2).unwrap();
        let kind = TransferKind::Hold;
        let actions = [
            Action::Open { account: a, currency: euro },
            Action::Move { kind, debit: a, credit: b, amount: Minor(3) },
            Action::Freeze { account: a },
            Action::Unfreeze { account: a },
            Action::Close { account: a },
        ];
        let mut legs: Vec<Leg> = actions.into_iter().map(Leg::from).collect();
        legs[1].with_previous = true;
        legs[2].linked = Some(0);
        legs[3].metadata = Some(RawValue::from_string("{\"a\" : 1.0}".to_owned()).unwrap());
        let companions = ["taken", "gone"].map(|refusal| {
            Companion::new(&KIND, &serde_json::json!({ "game": refusal }), refusal).unwrap()
        });
        Posting {
            key: Some(HashedKey { hash: Uuid::from_u128(1), content: Uuid::from_u128(2) }),
            legs,
            companions: companions.into(),
            trace_id: Some(Uuid::from_u128(3)),
        }
    }

    #[test]
    fn a_posting_arrives_as_it_was_sent() {
        let (sent, registry) = (posting(), CompanionRegistry::new(&[&KIND]));
        let arrived = decode_posting(encode_posting(&sent), &registry).unwrap();

        assert_eq!((arrived.key, arrived.trace_id), (sent.key, sent.trace_id));
        for (arrived, sent) in arrived.legs.iter().zip(&sent.legs) {
            let metadata = [arrived, sent].map(|leg| leg.metadata.as_ref().map(|text| text.get()));
            assert_eq!(metadata[0], metadata[1]);
            assert_eq!(
                (arrived.action, arrived.with_previous, arrived.linked),
                (sent.action, sent.with_previous, sent.linked)
            );
        }
        for (arrived, sent) in arrived.companions.iter().zip(&sent.companions) {
            assert_eq!((arrived.kind, arrived.members()), (sent.kind, sent.members()));
        }
        let without = Posting { trace_id: None, legs: Vec::new(), ..posting() };
        assert_eq!(decode_posting(encode_posting(&without), &registry).unwrap().trace_id, None);
    }

    #[test]
    fn a_posting_of_another_version_is_not_read() {
        let nothing = CompanionRegistry::new(&[]);
        assert!(decode_posting(encode_posting(&posting()), &nothing).is_none());
        let registry = CompanionRegistry::new(&[&KIND]);
        let mut unknown_kind = encode_posting(&posting());
        unknown_kind.legs[1].kind = 99;
        assert!(decode_posting(unknown_kind, &registry).is_none());
        let mut many = posting();
        many.companions = vec![many.companions[0].clone(); COMPANION_REFUSALS.len() + 1];
        assert!(decode_posting(encode_posting(&many), &registry).is_none());
    }

    #[test]
    fn every_reply_arrives_as_it_was_sent() {
        let (a, b) = (AccountId(1), AccountId(-2));
        let in_leg = |refusal| Refusal::InLeg { leg: 4, refusal: Box::new(refusal) };
        let refusals = [
            Refusal::NoSuchAccount(a),
            Refusal::AccountExists(a),
            Refusal::AccountClosed(a),
            Refusal::AccountFrozen(a),
            Refusal::AccountNotFrozen(a),
            Refusal::AccountNotEmpty(b),
            Refusal::InsufficientFunds { account: a, available: Minor(1), required: Minor(2) },
            Refusal::BalanceTooLarge(b),
            Refusal::AmountTooLarge { limit: Minor(9) },
            Refusal::CurrencyMismatch(a, b),
            Refusal::KeyReused,
            in_leg(Refusal::CurrencyMismatch(b, a)),
        ];
        let row = TransferRow {
            kind: TransferKind::Hold,
            leg: 1,
            legs: 2,
            debit: a,
            credit: b,
            amount: Minor(5),
            debit_balance: Minor(0),
            credit_balance: Minor(-6),
        };
        let posted = Posted {
            first_seq: 8,
            last_seq: 9,
            at: OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_000).unwrap(),
            replayed: true,
            rows: vec![row; 2],
            held: vec![(a, Minor(5))],
        };
        let mut replies: Vec<PostReply> = refusals.map(|refusal| Err(refusal.into())).into();
        replies.extend([
            Err(PostError::Overloaded),
            Err(PostError::Internal),
            Ok(PostOutcome::Posted(posted)),
            Ok(PostOutcome::Replay { first_seq: 3, last_seq: 4 }),
        ]);
        for sent in replies {
            let LeaderReply::Decided(arrived) = decode_reply(encode_reply(&sent), &posting())
            else {
                panic!("{sent:?} is not decided");
            };
            assert_eq!(format!("{arrived:?}"), format!("{sent:?}"));
        }
        let unknown = encode_reply(&Err(PostError::Unknown));
        assert!(matches!(decode_reply(unknown, &posting()), LeaderReply::Unknown));
        for reply in [unsupported(), encode_reply(&Err(PostError::Unavailable))] {
            assert!(matches!(decode_reply(reply, &posting()), LeaderReply::NotWritten));
        }
    }

    #[test]
    fn a_refused_companion_has_the_text_of_the_sender() {
        let registry = CompanionRegistry::new(&[&KIND]);
        let at_leader = decode_posting(encode_posting(&posting()), &registry).unwrap();
        let refused = Refusal::Companion(at_leader.companions[1].refusal);

        let reply = decode_reply(encode_reply(&Err(refused.into())), &posting());

        let LeaderReply::Decided(Err(PostError::Refused(refusal))) = reply else { panic!() };
        assert_eq!(refusal, Refusal::Companion("gone"));
    }
}
