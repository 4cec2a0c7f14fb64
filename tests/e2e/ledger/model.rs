//! Random postings through two writers, against a model that is too simple to be wrong.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use revwallet::ledger::read::{self, HistoryRange};
use sqlx::PgConnection;

use super::*;
use crate::harness::is_long;

const ACCOUNTS: i64 = 4;

/// An operation on the book.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Open(i64),
    Close(i64),
    Freeze(i64),
    Unfreeze(i64),
    Deposit(i64, i64),
    /// From, to, amount, and whether there is a fee of 1.
    Transfer(i64, i64, i64, bool),
    /// Account and amount to hold.
    Hold(i64, i64),
    /// Account and amount to release.
    Void(i64, i64),
}

#[derive(Debug, Clone, Copy)]
struct Step {
    operation: Operation,
    /// Drawn from a few keys, so that keys collide.
    key: Option<u8>,
    /// Whether it is posted by the second writer.
    by_second_writer: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let account = || 1..=ACCOUNTS;
    let amount = || 1..50_i64;
    let operation = prop_oneof![
        2 => account().prop_map(Operation::Open),
        1 => account().prop_map(Operation::Close),
        1 => account().prop_map(Operation::Freeze),
        1 => account().prop_map(Operation::Unfreeze),
        5 => (account(), amount()).prop_map(|(account, amount)| Operation::Deposit(account, amount)),
        6 => (account(), account(), amount(), any::<bool>())
            .prop_map(|(from, to, amount, fee)| Operation::Transfer(from, to, amount, fee)),
        2 => (account(), amount()).prop_map(|(account, amount)| Operation::Hold(account, amount)),
        2 => (account(), amount()).prop_map(|(account, amount)| Operation::Void(account, amount)),
    ];
    let key = proptest::option::weighted(0.4, 0..6_u8);
    (operation, key, any::<bool>()).prop_map(|(operation, key, by_second_writer)| Step {
        operation,
        key,
        by_second_writer,
    })
}

/// A model of the book in the simplest form.
#[derive(Default)]
struct Model {
    balances: BTreeMap<i64, i64>,
    /// 'o'pen, 'f'rozen or 'c'losed.
    states: BTreeMap<i64, char>,
    keys: HashMap<u8, (String, i64)>,
    /// The balances after each seq.
    past: Vec<BTreeMap<i64, i64>>,
}

/// Movements: from, to, amount. A change of state has the amount 0.
type Moves = Vec<(i64, i64, i64)>;

const WORLD: i64 = -1;
const REVENUE: i64 = -2;

/// The model's id of an account's hold account.
const fn held(account: i64) -> i64 {
    account + 100
}

impl Model {
    /// Applies a step. Returns its first seq, or the reason of its refusal.
    fn apply_step(&mut self, step: Step) -> Result<i64, &'static str> {
        let content = format!("{:?}", step.operation);
        if let Some((stored, seq)) = step.key.and_then(|key| self.keys.get(&key)) {
            return if *stored == content { Ok(*seq) } else { Err("duplicate") };
        }
        let seq = i64::try_from(self.past.len()).unwrap() + 1;
        self.apply(step.operation)?;
        if let Some(key) = step.key {
            self.keys.insert(key, (content, seq));
        }
        Ok(seq)
    }

    fn apply(&mut self, operation: Operation) -> Result<(), &'static str> {
        let moves = match operation {
            Operation::Open(account) if self.states.contains_key(&account) => {
                return Err("account_exists");
            }
            Operation::Open(account) => {
                self.states.insert(account, 'o');
                vec![(account, account, 0)]
            }
            Operation::Close(account)
            | Operation::Freeze(account)
            | Operation::Unfreeze(account) => {
                self.change_state(operation, account)?;
                vec![(account, account, 0)]
            }
            Operation::Deposit(account, amount) => vec![(WORLD, account, amount)],
            Operation::Transfer(from, to, ..) if from == to => return Err("malformed"),
            Operation::Transfer(from, to, amount, fee) => {
                let mut moves = vec![(from, to, amount)];
                moves.extend(fee.then_some((from, REVENUE, 1)));
                moves
            }
            Operation::Hold(account, amount) => vec![(account, held(account), amount)],
            Operation::Void(account, amount) => vec![(held(account), account, amount)],
        };
        self.apply_moves(&moves)
    }

    fn change_state(&mut self, operation: Operation, account: i64) -> Result<(), &'static str> {
        let state = *self.states.get(&account).ok_or("no_such_account")?;
        let has = |account| self.balances.get(&account).copied().unwrap_or_default();
        let next = match (operation, state) {
            (_, 'c') => return Err("closed"),
            (Operation::Unfreeze(_), 'f') => 'o',
            (_, 'f') | (Operation::Unfreeze(_), _) => return Err("frozen"),
            (Operation::Freeze(_), _) => 'f',
            _ if has(account) + has(held(account)) > 0 => return Err("not_empty"),
            _ => 'c',
        };
        self.states.insert(account, next);
        Ok(())
    }

    /// Applies all of these movements, or none.
    fn apply_moves(&mut self, moves: &Moves) -> Result<(), &'static str> {
        let mut balances = self.balances.clone();
        let mut past = Vec::new();
        for (from, to, amount) in moves {
            for account in [from, to].into_iter().filter(|account| **account > 0) {
                let owner = if *account > 100 { account - 100 } else { *account };
                self.states.get(&owner).ok_or("no_such_account")?;
            }
            if *amount > 0 && [from, to].iter().any(|id| self.states.get(id) == Some(&'c')) {
                return Err("closed");
            }
            if *amount > 0 && self.states.get(from) == Some(&'f') {
                return Err("frozen");
            }
            let left = balances.get(from).copied().unwrap_or_default() - amount;
            if left < 0 && *from > 0 {
                return Err("insufficient_funds");
            }
            balances.insert(*from, left);
            *balances.entry(*to).or_default() += amount;
            past.push(balances.clone());
        }
        self.balances = balances;
        self.past.append(&mut past);
        Ok(())
    }
}

/// The ledger's account for an id of the model.
fn account(id: i64) -> AccountId {
    match id {
        WORLD => AccountId::system(SystemRole::World, euro()),
        REVENUE => AccountId::system(SystemRole::Revenue, euro()),
        id if id > 100 => AccountId(id - 100).hold().unwrap(),
        id => AccountId(id),
    }
}

fn posting_of(step: Step) -> Posting {
    let pay = |kind, from, to, amount| {
        let (debit, credit) = (account(from), account(to));
        Leg::from(Action::Move { kind, debit, credit, amount: Minor(amount) })
    };
    let legs = match step.operation {
        Operation::Open(id) => vec![Action::Open { account: account(id), currency: euro() }.into()],
        Operation::Close(id) => vec![Action::Close { account: account(id) }.into()],
        Operation::Freeze(id) => vec![Action::Freeze { account: account(id) }.into()],
        Operation::Unfreeze(id) => vec![Action::Unfreeze { account: account(id) }.into()],
        Operation::Deposit(id, amount) => vec![pay(TransferKind::Deposit, WORLD, id, amount)],
        Operation::Transfer(from, to, amount, fee) => {
            let mut legs = vec![pay(TransferKind::Transfer, from, to, amount)];
            let fee = fee.then(|| pay(TransferKind::Fee, from, REVENUE, 1));
            legs.extend(fee.map(|leg| Leg { with_previous: true, ..leg }));
            legs
        }
        Operation::Hold(id, amount) => vec![pay(TransferKind::Hold, id, held(id), amount)],
        Operation::Void(id, amount) => vec![pay(TransferKind::Void, held(id), id, amount)],
    };
    let digest = |text: &str| {
        let bytes = text
            .bytes()
            .fold(7_u128, |hash, byte| hash.wrapping_mul(1_099_511_628_211) ^ u128::from(byte));
        Uuid::from_u128(bytes)
    };
    let key = step.key.map(|key| HashedKey {
        hash: Uuid::from_u128(u128::from(key)),
        content: digest(&format!("{:?}", step.operation)),
    });
    Posting { key, legs, ..Posting::default() }
}

async fn run_case(steps: Vec<Step>) {
    let database = Database::create().await;
    let writers = [Setup::new(&database).start().await, Setup::new(&database).start().await];
    let mut model = Model::default();
    for step in steps {
        let expected = model.apply_step(step);
        let writer = &writers[usize::from(step.by_second_writer)];
        let found = send_with_retry(&writer.ledger, posting_of(step)).await;
        match (&found, expected) {
            (Ok(posted), Ok(seq)) => assert_eq!(posted.first_seq, seq, "{step:?}"),
            (Err(refusal), Err(reason)) => assert_eq!(refusal.reason(), reason, "{step:?}"),
            _ => panic!("{step:?}: {found:?}, expected {expected:?}"),
        }
    }
    for writer in writers {
        writer.stop().await;
    }
    let mut db = database.connect().await;
    assert_past_balances(&mut db, &model).await;
    assert_histories(&mut db, &model).await;
    drop(db);
    book(&database).await;
    database.drop().await;
}

/// Compares the balances at each seq and at each moment with those of the model.
async fn assert_past_balances(db: &mut PgConnection, model: &Model) {
    let ids: Vec<i64> =
        (1..=ACCOUNTS).flat_map(|id| [id, held(id)]).chain([WORLD, REVENUE]).collect();
    let accounts: Vec<AccountId> = ids.iter().map(|id| account(*id)).collect();
    let rows = read::rows(db, 1, 0, i64::MAX, i64::MAX).await.unwrap();
    assert_eq!(rows.len(), model.past.len());
    for (row, past) in rows.iter().zip(&model.past) {
        let expected: Vec<Minor> =
            ids.iter().map(|id| Minor(past.get(id).copied().unwrap_or_default())).collect();
        let balances = read::balances(db, &accounts, row.seq).await.unwrap();
        assert_eq!(balances, expected, "after {}", row.seq);
        // Several transfers may have the same time: then the last of them counts.
        let last = read::seq_at(db, AccountId(1), row.at).await.unwrap();
        assert!(last >= row.seq);
        let sealed = rows.iter().rfind(|other| other.at == row.at).unwrap();
        assert_eq!(last, sealed.seq);
        assert!(read::seq_before(db, AccountId(1), row.at).await.unwrap() < row.seq);
    }
}

/// Compares each history, page by page and in both orders, with the balances of the model.
async fn assert_histories(db: &mut PgConnection, model: &Model) {
    for id in 1..=ACCOUNTS {
        let expected: Vec<(i64, i64, i64)> = (1..)
            .zip(&model.past)
            .scan((None, None), |before, (seq, past)| {
                let now = (past.get(&id).copied(), past.get(&held(id)).copied());
                let changed = *before != now;
                *before = now;
                Some((changed, (seq, now.0.unwrap_or_default(), now.1.unwrap_or_default())))
            })
            .filter_map(|(changed, entry)| changed.then_some(entry))
            .collect();
        let mut found = Vec::new();
        let mut before = read::END;
        loop {
            let range = HistoryRange { from: 0, before, oldest_first: false, limit: 3 };
            let page = read::history(db, AccountId(id), range).await.unwrap().entries;
            let Some(last) = page.last() else { break };
            before = last.seq;
            found.extend(page);
        }
        let moved: Vec<_> = found.iter().filter(|entry| entry.amount.0 > 0).collect();
        let moved_balances: Vec<_> =
            moved.iter().rev().map(|entry| (entry.seq, entry.available.0, entry.held.0)).collect();
        let expected: Vec<_> = expected
            .into_iter()
            .filter(|(seq, ..)| moved_balances.iter().any(|(found, ..)| found == seq))
            .collect();
        assert_eq!(moved_balances, expected, "history of {id}");
        let range = HistoryRange { from: 0, before: read::END, oldest_first: true, limit: 1_000 };
        let ascending = read::history(db, AccountId(id), range).await.unwrap().entries;
        assert!(
            ascending.iter().eq(found.iter().rev()),
            "the two orders must have the same entries"
        );
        let touching = count_touching(db, id).await;
        assert_eq!(
            i64::try_from(ascending.len()).unwrap(),
            touching,
            "the history must be complete"
        );
    }
}

/// Counts the rows that touch an account or its hold account.
async fn count_touching(db: &mut PgConnection, id: i64) -> i64 {
    sqlx::query_scalar(
        "select count(*) from ledger.transfer where debit in ($1, $2) or credit in ($1, $2)",
    )
    .bind(id)
    .bind(account(held(id)).0)
    .fetch_one(db)
    .await
    .unwrap()
}

#[test]
fn random_postings_agree_with_the_model() {
    let cases = if is_long() { 200 } else { 8 };
    let config =
        Config { cases, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let steps = proptest::collection::vec(step(), 40..120);

    let outcome = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(run_case(steps));
        Ok(())
    });

    outcome.unwrap();
}
