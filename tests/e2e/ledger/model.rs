//! Random postings through two writers, against a model that is too simple to be wrong.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use revwallet::ledger::read::{self, Span};
use sqlx::PgConnection;

use super::*;
use crate::harness::is_long;

const ACCOUNTS: i64 = 4;

/// What somebody asks for.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Open(i64),
    Close(i64),
    Freeze(i64),
    Unfreeze(i64),
    Deposit(i64, i64),
    /// From, to, amount, and a fee of 1.
    Transfer(i64, i64, i64, bool),
    /// Set aside.
    Hold(i64, i64),
    /// And released again.
    Void(i64, i64),
}

#[derive(Debug, Clone, Copy)]
struct Step {
    wish: Wish,
    /// Few keys, so that they meet.
    key: Option<u8>,
    /// Through which writer.
    writer: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let account = || 1..=ACCOUNTS;
    let amount = || 1..50_i64;
    let wish = prop_oneof![
        2 => account().prop_map(Wish::Open),
        1 => account().prop_map(Wish::Close),
        1 => account().prop_map(Wish::Freeze),
        1 => account().prop_map(Wish::Unfreeze),
        5 => (account(), amount()).prop_map(|(account, amount)| Wish::Deposit(account, amount)),
        6 => (account(), account(), amount(), any::<bool>())
            .prop_map(|(from, to, amount, fee)| Wish::Transfer(from, to, amount, fee)),
        2 => (account(), amount()).prop_map(|(account, amount)| Wish::Hold(account, amount)),
        2 => (account(), amount()).prop_map(|(account, amount)| Wish::Void(account, amount)),
    ];
    let key = proptest::option::weighted(0.4, 0..6_u8);
    (wish, key, any::<bool>()).prop_map(|(wish, key, writer)| Step { wish, key, writer })
}

/// Everything there is to know, in the simplest form.
#[derive(Default)]
struct Model {
    balances: BTreeMap<i64, i64>,
    /// 'o'pen, 'f'rozen or 'c'losed.
    states: BTreeMap<i64, char>,
    keys: HashMap<u8, (String, i64)>,
    /// The balances after each seq.
    past: Vec<BTreeMap<i64, i64>>,
}

/// What is moved: from, to, amount. A change of state moves nothing.
type Moves = Vec<(i64, i64, i64)>;

const WORLD: i64 = -1;
const REVENUE: i64 = -2;

/// Where the model keeps what is held.
const fn held(account: i64) -> i64 {
    account + 100
}

impl Model {
    /// The first seq of what was done, or the reason why nothing was.
    fn wish(&mut self, step: Step) -> Result<i64, &'static str> {
        let content = format!("{:?}", step.wish);
        if let Some((known, seq)) = step.key.and_then(|key| self.keys.get(&key)) {
            return if *known == content { Ok(*seq) } else { Err("duplicate") };
        }
        let seq = i64::try_from(self.past.len()).unwrap() + 1;
        self.apply(step.wish)?;
        if let Some(key) = step.key {
            self.keys.insert(key, (content, seq));
        }
        Ok(seq)
    }

    fn apply(&mut self, wish: Wish) -> Result<(), &'static str> {
        let moves = match wish {
            Wish::Open(account) if self.states.contains_key(&account) => {
                return Err("account_exists");
            }
            Wish::Open(account) => {
                self.states.insert(account, 'o');
                vec![(account, account, 0)]
            }
            Wish::Close(account) | Wish::Freeze(account) | Wish::Unfreeze(account) => {
                self.change_state(wish, account)?;
                vec![(account, account, 0)]
            }
            Wish::Deposit(account, amount) => vec![(WORLD, account, amount)],
            Wish::Transfer(from, to, ..) if from == to => return Err("malformed"),
            Wish::Transfer(from, to, amount, fee) => {
                let mut moves = vec![(from, to, amount)];
                moves.extend(fee.then_some((from, REVENUE, 1)));
                moves
            }
            Wish::Hold(account, amount) => vec![(account, held(account), amount)],
            Wish::Void(account, amount) => vec![(held(account), account, amount)],
        };
        self.carry(&moves)
    }

    fn change_state(&mut self, wish: Wish, account: i64) -> Result<(), &'static str> {
        let state = *self.states.get(&account).ok_or("no_such_account")?;
        let has = |account| self.balances.get(&account).copied().unwrap_or_default();
        let next = match (wish, state) {
            (_, 'c') => return Err("closed"),
            (Wish::Unfreeze(_), 'f') => 'o',
            (_, 'f') | (Wish::Unfreeze(_), _) => return Err("frozen"),
            (Wish::Freeze(_), _) => 'f',
            _ if has(account) + has(held(account)) > 0 => return Err("not_empty"),
            _ => 'c',
        };
        self.states.insert(account, next);
        Ok(())
    }

    /// All of these moves, or none.
    fn carry(&mut self, moves: &Moves) -> Result<(), &'static str> {
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

/// The account of the ledger that the model means.
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
    let legs = match step.wish {
        Wish::Open(id) => vec![Action::Open { account: account(id), currency: euro() }.into()],
        Wish::Close(id) => vec![Action::Close { account: account(id) }.into()],
        Wish::Freeze(id) => vec![Action::Freeze { account: account(id) }.into()],
        Wish::Unfreeze(id) => vec![Action::Unfreeze { account: account(id) }.into()],
        Wish::Deposit(id, amount) => vec![pay(TransferKind::Deposit, WORLD, id, amount)],
        Wish::Transfer(from, to, amount, fee) => {
            let mut legs = vec![pay(TransferKind::Transfer, from, to, amount)];
            let fee = fee.then(|| pay(TransferKind::Fee, from, REVENUE, 1));
            legs.extend(fee.map(|leg| Leg { with_previous: true, ..leg }));
            legs
        }
        Wish::Hold(id, amount) => vec![pay(TransferKind::Hold, id, held(id), amount)],
        Wish::Void(id, amount) => vec![pay(TransferKind::Void, held(id), id, amount)],
    };
    let digest = |text: &str| {
        let bytes = text
            .bytes()
            .fold(7_u128, |hash, byte| hash.wrapping_mul(1_099_511_628_211) ^ u128::from(byte));
        Uuid::from_u128(bytes)
    };
    let key = step.key.map(|key| HashedKey {
        hash: Uuid::from_u128(u128::from(key)),
        content: digest(&format!("{:?}", step.wish)),
    });
    Posting { key, legs, ..Posting::default() }
}

async fn run_case(steps: Vec<Step>) {
    let database = Database::create().await;
    let writers = [Setup::of(&database).start().await, Setup::of(&database).start().await];
    let mut model = Model::default();
    for step in steps {
        let expected = model.wish(step);
        let writer = &writers[usize::from(step.writer)];
        let found = send_with_retry(&writer.ledger, posting_of(step)).await;
        match (&found, expected) {
            (Ok(posted), Ok(seq)) => assert_eq!(posted.first_seq, seq, "{step:?}"),
            (Err(refusal), Err(reason)) => assert_eq!(refusal.reason(), reason, "{step:?}"),
            _ => panic!("{step:?}: {found:?}, and should be {expected:?}"),
        }
    }
    for writer in writers {
        writer.stop().await;
    }
    let mut db = database.connect().await;
    then_is_as_it_was(&mut db, &model).await;
    histories_are_replays(&mut db, &model).await;
    drop(db);
    book(&database).await;
    database.drop().await;
}

/// Balances at each seq, and at each moment, against what the model had then.
async fn then_is_as_it_was(db: &mut PgConnection, model: &Model) {
    let ids: Vec<i64> =
        (1..=ACCOUNTS).flat_map(|id| [id, held(id)]).chain([WORLD, REVENUE]).collect();
    let accounts: Vec<AccountId> = ids.iter().map(|id| account(*id)).collect();
    let lines = read::lines(db, 1, 0, i64::MAX, i64::MAX).await.unwrap();
    assert_eq!(lines.len(), model.past.len());
    for (line, past) in lines.iter().zip(&model.past) {
        let expected: Vec<Minor> =
            ids.iter().map(|id| Minor(past.get(id).copied().unwrap_or_default())).collect();
        let then = read::balances(db, 1, &accounts, line.seq).await.unwrap();
        assert_eq!(then, expected, "after {}", line.seq);
        // Of several transfers of one moment, that moment has seen the last.
        let last = read::seq_at(db, 1, line.at).await.unwrap();
        assert!(last >= line.seq);
        let sealed = lines.iter().rfind(|other| other.at == line.at).unwrap();
        assert_eq!(last, sealed.seq);
        assert!(read::seq_before(db, 1, line.at).await.unwrap() < line.seq);
    }
}

/// Each history, page by page and in both directions, against the balances of the model.
async fn histories_are_replays(db: &mut PgConnection, model: &Model) {
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
            let span = Span { from: 0, before, oldest_first: false, limit: 3 };
            let page = read::history(db, 1, AccountId(id), span).await.unwrap();
            let Some(last) = page.last() else { break };
            before = last.seq;
            found.extend(page);
        }
        let moved: Vec<_> = found.iter().filter(|entry| entry.amount.0 > 0).collect();
        let down: Vec<_> =
            moved.iter().rev().map(|entry| (entry.seq, entry.available.0, entry.held.0)).collect();
        let expected: Vec<_> = expected
            .into_iter()
            .filter(|(seq, ..)| down.iter().any(|(found, ..)| found == seq))
            .collect();
        assert_eq!(down, expected, "history of {id}");
        let span = Span { from: 0, before: read::END, oldest_first: true, limit: 1_000 };
        let up = read::history(db, 1, AccountId(id), span).await.unwrap();
        assert!(up.iter().eq(found.iter().rev()), "both directions tell the same");
        let touching = count_touching(db, id).await;
        assert_eq!(i64::try_from(up.len()).unwrap(), touching, "nothing is left out");
    }
}

/// The rows that concern an account or what it holds.
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
fn random_postings_do_what_the_model_says() {
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
