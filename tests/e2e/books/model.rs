//! Random postings to several books, against the same postings to one book.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::harness::is_long;

const BOOKS: i32 = 3;
const ACCOUNTS: i64 = 5;

/// A movement between two of the accounts.
#[derive(Debug, Clone, Copy)]
enum Movement {
    Deposit(i64, i64),
    Withdrawal(i64, i64),
    Transfer(i64, i64, i64),
    Hold(i64, i64),
    /// From the hold of the first account to the second.
    Capture(i64, i64, i64),
    /// From the operator's reserve for prizes, or into it.
    Prize(i64, i64),
    Fund(i64, i64),
}

#[derive(Debug, Clone)]
enum Step {
    Open(i64),
    Freeze(i64),
    Unfreeze(i64),
    /// Movements that are written together, under a key that other steps may use as well.
    Move(Vec<Movement>, Option<u8>),
}

fn movement() -> impl Strategy<Value = Movement> {
    let account = || 1..=ACCOUNTS;
    let amount = || 1..60_i64;
    prop_oneof![
        4 => (account(), amount()).prop_map(|(to, amount)| Movement::Deposit(to, amount)),
        1 => (account(), amount()).prop_map(|(from, amount)| Movement::Withdrawal(from, amount)),
        6 => (account(), account(), amount())
            .prop_map(|(from, to, amount)| Movement::Transfer(from, to, amount)),
        2 => (account(), amount()).prop_map(|(owner, amount)| Movement::Hold(owner, amount)),
        2 => (account(), account(), amount())
            .prop_map(|(owner, to, amount)| Movement::Capture(owner, to, amount)),
        1 => (account(), amount()).prop_map(|(to, amount)| Movement::Prize(to, amount)),
        1 => (account(), amount()).prop_map(|(from, amount)| Movement::Fund(from, amount)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let moves = proptest::collection::vec(movement(), 1..4);
    prop_oneof![
        2 => (1..=ACCOUNTS).prop_map(Step::Open),
        1 => (1..=ACCOUNTS).prop_map(Step::Freeze),
        1 => (1..=ACCOUNTS).prop_map(Step::Unfreeze),
        12 => (moves, proptest::option::weighted(0.3, 0..5_u8))
            .prop_map(|(moves, key)| Step::Move(moves, key)),
    ]
}

/// An installation with a number of books. The accounts are spread over them.
struct Installation {
    books: i32,
    database: Database,
    process: Process,
}

impl Installation {
    async fn new(count: i32) -> Self {
        let database = books(count).await;
        let process = Process::start(&database, count).await;
        Self { books: count, database, process }
    }

    fn account(&self, id: i64) -> AccountId {
        customer(i32::try_from(id).unwrap() % self.books + 1, id)
    }

    fn leg(&self, movement: Movement) -> Leg {
        use TransferKind as Kind;
        let account = |id| self.account(id);
        let hold = |id| account(id).hold().unwrap();
        let prize = AccountId::system(SystemRole::Prize, euro());
        let action = match movement {
            Movement::Deposit(to, amount) => pay(Kind::Deposit, world(), account(to), amount),
            Movement::Withdrawal(from, amount) => {
                pay(Kind::Withdrawal, account(from), world(), amount)
            }
            Movement::Transfer(from, to, amount) => transfer(account(from), account(to), amount),
            Movement::Hold(owner, amount) => pay(Kind::Hold, account(owner), hold(owner), amount),
            Movement::Capture(owner, to, amount) => {
                pay(Kind::Capture, hold(owner), account(to), amount)
            }
            Movement::Prize(to, amount) => pay(Kind::Payout, prize, account(to), amount),
            Movement::Fund(from, amount) => pay(Kind::Transfer, account(from), prize, amount),
        };
        action.into()
    }

    fn posting(&self, step: &Step) -> Posting {
        let (legs, key) = match step {
            Step::Open(id) => {
                (vec![Action::Open { account: self.account(*id), currency: euro() }.into()], None)
            }
            Step::Freeze(id) => (vec![Action::Freeze { account: self.account(*id) }.into()], None),
            Step::Unfreeze(id) => {
                (vec![Action::Unfreeze { account: self.account(*id) }.into()], None)
            }
            Step::Move(moves, key) => {
                (moves.iter().map(|movement| self.leg(*movement)).collect(), *key)
            }
        };
        let key = key.map(|key| {
            let text = format!("{step:?}");
            let content = text
                .bytes()
                .fold(7_u128, |hash, byte| hash.wrapping_mul(1_099_511_628_211) ^ u128::from(byte));
            HashedKey { hash: Uuid::from_u128(key.into()), content: Uuid::from_u128(content) }
        });
        Posting { key, legs, ..Posting::default() }
    }

    /// Posts a step. Returns what a client sees of it, in which ids of accounts and transfers are left out.
    async fn run(&self, step: &Step) -> Result<Vec<(Option<i64>, Option<i64>)>, &'static str> {
        match self.process.ledger.post(self.posting(step)).await {
            Ok(posted) => {
                let balance = |id: AccountId, balance: Minor| (id.0 > 0).then_some(balance.0);
                let rows = posted.rows.iter().map(|row| {
                    (balance(row.debit, row.debit_balance), balance(row.credit, row.credit_balance))
                });
                Ok(rows.collect())
            }
            Err(PostError::Refused(refusal)) => Err(refusal.reason()),
            Err(error) => panic!("{step:?}: {error}"),
        }
    }

    /// The available and held balance of each account.
    async fn balances(&self) -> Vec<(i64, i64)> {
        let mut balances = Vec::new();
        let mut db = self.database.connect().await;
        for id in 1..=ACCOUNTS {
            let account = self.account(id);
            let accounts = [account, account.hold().unwrap()];
            let found = read::balances(&mut db, &accounts, END).await.unwrap();
            balances.push((found[0].0, found[1].0));
        }
        balances
    }

    async fn stop(self) {
        self.process.stop().await;
        assert_verified(&self.database).await;
        self.database.drop().await;
    }
}

async fn run_case(steps: Vec<Step>) {
    let (one, several) = (Installation::new(1).await, Installation::new(BOOKS).await);
    for step in &steps {
        assert_eq!(several.run(step).await, one.run(step).await, "{step:?}");
    }
    assert_eq!(several.balances().await, one.balances().await);
    one.stop().await;
    several.stop().await;
}

#[test]
fn random_postings_to_several_books_have_the_same_effect_as_to_one() {
    let cases = if is_long() { 150 } else { 6 };
    let config =
        Config { cases, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let steps = proptest::collection::vec(step(), 60..160);

    let outcome = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(run_case(steps));
        Ok(())
    });

    outcome.unwrap();
}
