//! Tests of each rule, and a test that compares the results for random postings with those of a simple model of the
//! rules.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::super::account::SystemRole;
use super::super::money::MAX_BALANCE;
use super::*;

fn rules() -> Rules {
    Rules { amount_max: Minor(1_000_000), currencies: Currencies::default() }
}

fn eur() -> Currency {
    Currency::new("EUR", 2).unwrap()
}

fn usd() -> Currency {
    Currency::new("USD", 2).unwrap()
}

fn world() -> AccountId {
    AccountId::system(SystemRole::World, eur())
}

fn open(account: i64) -> Leg {
    Action::Open { account: AccountId(account), currency: eur() }.into()
}

fn pay(debit: AccountId, credit: AccountId, amount: i64) -> Leg {
    Action::Move { kind: TransferKind::Transfer, debit, credit, amount: Minor(amount) }.into()
}

/// An in-memory ledger, which applies the rules to postings and keeps the resulting accounts.
#[derive(Default)]
struct Book {
    accounts: BTreeMap<AccountId, Account>,
}

impl Book {
    fn post(&mut self, legs: &[Leg]) -> Result<Vec<TransferRow>, Refusal> {
        let mut decision = Decision::default();
        decide(legs, &rules(), |id| self.accounts.get(&id).copied(), &mut decision)?;
        self.accounts.extend(decision.touched.iter().copied());
        Ok(decision.rows)
    }

    fn balance(&self, id: AccountId) -> i64 {
        self.accounts[&id].balance.0
    }
}

#[test]
fn an_account_is_opened_funded_and_charged_in_one_posting() {
    let mut book = Book::default();

    let rows = book
        .post(&[open(1), pay(world(), AccountId(1), 100), pay(AccountId(1), world(), 30)])
        .unwrap();

    assert_eq!(rows[1].credit_balance, Minor(100));
    assert_eq!(rows[2].debit_balance, Minor(70));
    assert_eq!(rows[2].credit_balance, Minor(-70));
    assert_eq!(book.balance(AccountId(1)), 70);
}

#[test]
fn a_posting_is_written_as_a_whole_or_not_at_all() {
    let mut book = Book::default();
    book.post(&[open(1), pay(world(), AccountId(1), 100)]).unwrap();

    let refused = book.post(&[pay(AccountId(1), world(), 60), pay(AccountId(1), world(), 60)]);

    let expected = Refusal::InsufficientFunds {
        account: AccountId(1),
        available: Minor(40),
        required: Minor(60),
    };
    assert_eq!(refused, Err(expected));
    assert_eq!(book.balance(AccountId(1)), 100);
    assert!(book.post(&[pay(AccountId(1), world(), 100)]).is_ok());
}

#[test]
fn legs_of_one_transfer_are_numbered_together() {
    let mut book = Book::default();
    let fee = |leg: Leg| Leg { with_previous: true, ..leg };
    let deposit = |amount| pay(world(), AccountId(1), amount);

    let rows =
        book.post(&[open(1), deposit(1), fee(deposit(2)), fee(deposit(3)), deposit(4)]).unwrap();

    let numbers: Vec<_> = rows.iter().map(|row| (row.leg, row.legs)).collect();
    assert_eq!(numbers, [(0, 1), (0, 3), (1, 3), (2, 3), (0, 1)]);
    assert_eq!(
        book.post(&[fee(deposit(1))]),
        Err(Refusal::Malformed("its first leg has no previous leg"))
    );
}

#[test]
fn the_state_of_an_account_limits_its_transfers() {
    let mut book = Book::default();
    let one = AccountId(1);
    let [close, freeze, unfreeze] = [
        [Leg::from(Action::Close { account: one })],
        [Leg::from(Action::Freeze { account: one })],
        [Leg::from(Action::Unfreeze { account: one })],
    ];
    let [incoming, outgoing] = [[pay(world(), one, 10)], [pay(one, world(), 10)]];

    assert_eq!(book.post(&incoming), Err(Refusal::NoSuchAccount(one)));
    book.post(&[open(1)]).unwrap();
    assert_eq!(book.post(&[open(1)]), Err(Refusal::AccountExists(one)));
    assert_eq!(book.post(&unfreeze), Err(Refusal::AccountNotFrozen(one)));
    book.post(&incoming).unwrap();
    assert_eq!(book.post(&close), Err(Refusal::AccountNotEmpty(one)));
    book.post(&freeze).unwrap();
    book.post(&incoming).unwrap();
    assert_eq!(book.post(&outgoing), Err(Refusal::AccountFrozen(one)));
    assert_eq!(book.post(&freeze), Err(Refusal::AccountFrozen(one)));
    assert_eq!(book.post(&close), Err(Refusal::AccountFrozen(one)));
    book.post(&unfreeze).unwrap();
    book.post(&[pay(one, world(), 20)]).unwrap();
    book.post(&close).unwrap();
    for legs in [&incoming, &outgoing, &close, &freeze, &unfreeze] {
        assert_eq!(book.post(legs), Err(Refusal::AccountClosed(one)));
    }
    assert_eq!(book.post(&[open(1)]), Err(Refusal::AccountExists(one)));
}

#[test]
fn held_money_comes_only_from_its_owner_and_keeps_the_account_open() {
    let mut book = Book::default();
    let [one, two] = [AccountId(1), AccountId(2)];
    let hold = one.hold().unwrap();
    book.post(&[open(1), open(2), pay(world(), one, 10), pay(world(), two, 10)]).unwrap();

    book.post(&[pay(one, hold, 10)]).unwrap();

    assert!(matches!(book.post(&[pay(two, hold, 5)]), Err(Refusal::Malformed(_))));
    assert_eq!(
        book.post(&[Action::Close { account: one }.into()]),
        Err(Refusal::AccountNotEmpty(one))
    );
    assert!(matches!(book.post(&[pay(hold, two, 11)]), Err(Refusal::InsufficientFunds { .. })));
    book.post(&[Action::Freeze { account: one }.into(), pay(hold, two, 4), pay(hold, one, 6)])
        .unwrap();
    assert_eq!(book.balance(one), 6);
    assert_eq!(book.balance(two), 14);
}

#[test]
fn the_ceiling_covers_available_and_held_money_together() {
    let mut book = Book::default();
    let one = AccountId(1);
    let hold = one.hold().unwrap();
    book.post(&[open(1), pay(world(), one, 100), pay(one, hold, 60)]).unwrap();
    let available = Minor(MAX_BALANCE.0 - 60);
    let full = Account { balance: Minor(available.0 - 1), ..book.accounts[&one] };
    book.accounts.insert(one, full);

    assert_eq!(book.post(&[pay(world(), one, 2)]), Err(Refusal::BalanceTooLarge(one)));
    book.post(&[pay(world(), one, 1)]).unwrap();
    assert_eq!(book.post(&[pay(world(), one, 1)]), Err(Refusal::BalanceTooLarge(one)));
    book.post(&[pay(one, hold, 10), pay(hold, one, 30)]).unwrap();
    book.post(&[pay(hold, one, 40)]).unwrap();

    assert_eq!(book.balance(one), MAX_BALANCE.0, "a hold can always be released");
}

#[test]
fn limits_apply_to_both_accounts() {
    let mut book = Book::default();
    book.post(&[open(1)]).unwrap();
    let full = Account { balance: Minor(MAX_BALANCE.0 - 1), ..Account::empty(eur()) };
    book.accounts.insert(AccountId(1), full);
    let lowest = Account { balance: Minor(i64::MIN), ..full };
    book.accounts.insert(AccountId::system(SystemRole::Hot, eur()), lowest);

    assert_eq!(
        book.post(&[pay(world(), AccountId(1), 2)]),
        Err(Refusal::BalanceTooLarge(AccountId(1)))
    );
    assert!(book.post(&[pay(world(), AccountId(1), 1)]).is_ok());
    assert_eq!(
        book.post(&[pay(AccountId(1), world(), 1_000_001)]),
        Err(Refusal::AmountTooLarge { limit: Minor(1_000_000) })
    );
    assert!(book.post(&[pay(AccountId::system(SystemRole::Hot, eur()), world(), 1)]).is_err());
}

#[test]
fn both_accounts_must_have_the_same_currency() {
    let mut book = Book::default();
    let two = AccountId(2);
    book.post(&[
        open(1),
        Action::Open { account: two, currency: usd() }.into(),
        pay(world(), AccountId(1), 5),
    ])
    .unwrap();

    assert_eq!(
        book.post(&[pay(AccountId(1), two, 5)]),
        Err(Refusal::CurrencyMismatch(AccountId(1), two))
    );
    assert_eq!(book.post(&[pay(world(), two, 5)]), Err(Refusal::CurrencyMismatch(world(), two)));
    let unknown = AccountId::system(SystemRole::World, Currency::new("XYZ", 2).unwrap());
    assert_eq!(book.post(&[pay(unknown, two, 5)]), Err(Refusal::NoSuchAccount(unknown)));
}

#[test]
fn a_refund_leaves_a_payable_in_debt_and_a_payout_does_not() {
    let mut book = Book::default();
    let payable = AccountId::payable(1, eur()).unwrap();
    let move_of = |kind, amount| -> Leg {
        Action::Move { kind, debit: payable, credit: AccountId(1), amount: Minor(amount) }.into()
    };
    book.post(&[open(1), pay(world(), payable, 100)]).unwrap();

    let refused = book.post(&[move_of(TransferKind::Payout, 101)]);

    let (available, required) = (Minor(100), Minor(101));
    assert_eq!(refused, Err(Refusal::InsufficientFunds { account: payable, available, required }));
    book.post(&[move_of(TransferKind::Payout, 60), move_of(TransferKind::Refund, 50)]).unwrap();
    assert_eq!((book.balance(payable), book.balance(AccountId(1))), (-10, 110));
}

#[test]
fn malformed_postings_are_refused() {
    let mut book = Book::default();
    book.post(&[open(1)]).unwrap();
    let one = AccountId(1);
    let postings: [&[Leg]; 7] = [
        &[],
        &[pay(one, one, 5)],
        &[pay(world(), one, 0)],
        &[pay(world(), one, -5)],
        &[Action::Move { kind: TransferKind::Open, debit: world(), credit: one, amount: Minor(5) }
            .into()],
        &[Action::Open { account: AccountId(-1), currency: eur() }.into()],
        &[Action::Freeze { account: world() }.into()],
    ];
    for legs in postings {
        assert!(matches!(book.post(legs), Err(Refusal::Malformed(_))), "{legs:?}");
    }
}

/// A second, simpler implementation of the rules, with plain sums over the accepted legs.
#[derive(Default, Clone)]
struct Model {
    balances: BTreeMap<AccountId, i128>,
    opened: HashSet<AccountId>,
    frozen: HashSet<AccountId>,
    closed: HashSet<AccountId>,
}

impl Model {
    fn apply(&mut self, action: Action) -> bool {
        let customer = |id: AccountId| id.0 > 0;
        match action {
            Action::Open { account, .. } => self.opened.insert(account),
            Action::Freeze { account } => {
                self.opened.contains(&account)
                    && !self.closed.contains(&account)
                    && self.frozen.insert(account)
            }
            Action::Unfreeze { account } => self.frozen.remove(&account),
            Action::Close { account } => {
                let hold = account.hold().unwrap();
                let sum = |id| self.balances.get(&id).copied().unwrap_or(0);
                let empty = sum(account) == 0 && sum(hold) == 0;
                let live = self.opened.contains(&account) && !self.frozen.contains(&account);
                live && empty && self.closed.insert(account)
            }
            Action::Move { debit, credit, amount, .. } => {
                let missing = |id: AccountId| customer(id) && !self.opened.contains(&id);
                let closed = |id| self.closed.contains(&id);
                if missing(debit)
                    || missing(credit)
                    || closed(debit)
                    || closed(credit)
                    || self.frozen.contains(&debit)
                {
                    return false;
                }
                let from = self.balances.entry(debit).or_default();
                *from -= i128::from(amount.0);
                if *from < 0 && debit != world() {
                    return false;
                }
                let to = self.balances.entry(credit).or_default();
                *to += i128::from(amount.0);
                *to <= i128::from(MAX_BALANCE.0) || credit == world()
            }
        }
    }
}

fn any_action() -> impl Strategy<Value = Action> {
    let customer = (1i64..4).prop_map(AccountId);
    let move_between = |debit: BoxedStrategy<AccountId>, credit: BoxedStrategy<AccountId>| {
        (debit, credit, 1i64..60).prop_map(|(debit, credit, amount)| Action::Move {
            kind: TransferKind::Transfer,
            debit,
            credit,
            amount: Minor(amount),
        })
    };
    let any = || customer.clone().boxed();
    prop_oneof![
        2 => any().prop_map(|account| Action::Open { account, currency: eur() }),
        1 => any().prop_map(|account| Action::Freeze { account }),
        1 => any().prop_map(|account| Action::Unfreeze { account }),
        1 => any().prop_map(|account| Action::Close { account }),
        4 => move_between(Just(world()).boxed(), any()),
        3 => move_between(any(), Just(world()).boxed()),
        3 => move_between(any(), any()).prop_filter("two accounts", |action| {
            !matches!(action, Action::Move { debit, credit, .. } if debit == credit)
        }),
        2 => (any(), 1i64..60).prop_map(|(id, amount)| Action::Move {
            kind: TransferKind::Hold, debit: id, credit: id.hold().unwrap(), amount: Minor(amount),
        }),
        2 => (any(), any(), 1i64..60).prop_map(|(id, to, amount)| Action::Move {
            kind: TransferKind::Capture, debit: id.hold().unwrap(), credit: to, amount: Minor(amount),
        }),
    ]
}

proptest! {
    #[test]
    fn random_postings_agree_with_the_model(postings in prop::collection::vec(prop::collection::vec(any_action(), 1..30), 1..60)) {
        let mut book = Book::default();
        let mut model = Model::default();
        for actions in postings {
            let legs: Vec<Leg> = actions.iter().copied().map(Leg::from).collect();

            let ours = book.post(&legs);

            let mut after = model.clone();
            let accepted = actions.iter().all(|action| after.apply(*action));
            prop_assert_eq!(ours.is_ok(), accepted, "{:?}: {:?}", actions, ours);
            if accepted {
                model = after;
                for (id, balance) in &model.balances {
                    prop_assert_eq!(i128::from(book.balance(*id)), *balance);
                }
                prop_assert_eq!(model.balances.values().sum::<i128>(), 0);
            }
        }
    }
}
