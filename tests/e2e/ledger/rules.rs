//! The rules that the database itself holds transfers and seals to, whatever a program sends.

use sqlx::{AssertSqlSafe, Connection};

use super::*;

/// A row of `ledger.transfer`, which is valid unless a column is replaced.
const COLUMNS: [(&str, &str); 12] = [
    ("seq", "5"),
    ("debit", "7"),
    ("credit", "8"),
    ("amount", "100"),
    ("debit_balance", "0"),
    ("credit_balance", "100"),
    ("book", "1"),
    ("kind", "10"),
    ("leg", "0"),
    ("legs", "1"),
    ("linked", "null"),
    ("home", "null"),
];

/// Id of a wallet and seq of a transfer in the second book.
const SECOND_BOOK: &str = "(1::bigint << 44) + 9";

/// Inserts a row in which some columns have other values, and rolls back. Returns the rule that the row breaks.
async fn insert(database: &Database, replaced: &[(&str, &str)]) -> Option<String> {
    let value = |column| {
        let replaced = replaced.iter().chain(&COLUMNS);
        replaced.clone().find(|(name, _)| *name == column).unwrap().1
    };
    let names = COLUMNS.map(|(name, _)| name);
    let statement = format!(
        "insert into ledger.transfer (at, {}) values (now(), {})",
        names.join(", "),
        names.map(value).join(", ")
    );
    let mut connection = database.connect().await;
    let mut transaction = connection.begin().await.unwrap();
    match sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await {
        Ok(_) => None,
        Err(sqlx::Error::Database(error)) => Some(error.constraint().unwrap().to_owned()),
        Err(error) => panic!("{replaced:?}: {error}"),
    }
}

#[tokio::test]
async fn the_database_refuses_a_transfer_that_breaks_a_rule() {
    let database = Database::create().await;
    let hot = "-((3::bigint << 32) | 5)";
    let hold = "-(1::bigint << 40) - 7";
    let too_much = ("credit_balance", "9007199254740992");
    for (rule, row) in [
        ("transfer_seq_positive", &[("seq", "0")][..]),
        ("transfer_amount", &[("amount", "0")]),
        ("transfer_amount", &[("amount", "-1")]),
        ("transfer_amount", &[("credit", "7")]),
        ("transfer_amount", &[("kind", "1")]),
        ("transfer_floor", &[("debit_balance", "-1")]),
        ("transfer_floor", &[("debit_balance", "-1"), ("debit", hold)]),
        ("transfer_reserve_floor", &[("debit_balance", "-1"), ("debit", hot)]),
        ("transfer_ceiling", &[too_much]),
        ("transfer_ceiling", &[too_much, ("credit", hold)]),
        ("transfer_leg", &[("leg", "-1")]),
        ("transfer_leg", &[("leg", "1")]),
        ("transfer_leg", &[("leg", "5"), ("legs", "6")]),
        ("transfer_linked", &[("linked", "5")]),
        ("transfer_home", &[("home", "3")]),
    ] {
        assert_eq!(insert(&database, row).await.as_deref(), Some(rule), "{row:?}");
    }
    database.drop().await;
}

#[tokio::test]
async fn the_database_accepts_what_the_rules_allow() {
    let database = Database::create().await;
    let below_zero = ("debit_balance", "-1");
    for row in [
        &[][..],
        &[("amount", "0"), ("credit", "7"), ("kind", "1")],
        // The outside world, revenue, and the debt to a publisher.
        &[below_zero, ("debit", "-((1::bigint << 32) | 5)")],
        &[below_zero, ("debit", "-((2::bigint << 32) | 5)")],
        &[below_zero, ("debit", "-(1::bigint << 54) - 5")],
        // What a book records about an account of another book.
        &[below_zero, ("debit", SECOND_BOOK)],
        &[("credit_balance", "9007199254740992"), ("credit", SECOND_BOOK)],
        &[("linked", "4")],
        &[("linked", SECOND_BOOK)],
        &[("home", SECOND_BOOK)],
        &[("home", SECOND_BOOK), ("leg", "5"), ("legs", "6")],
    ] {
        assert_eq!(insert(&database, row).await, None, "{row:?}");
    }
    database.drop().await;
}

#[tokio::test]
async fn the_database_refuses_a_seal_that_breaks_a_rule() {
    let database = Database::create().await;
    for (book, values) in [
        (1, "null, 3, sha256('')"),
        (1, "3, 3, sha256('')"),
        (1, "4, 3, sha256('')"),
        (1, "0, 3, '\\x00'"),
        (2, "null, (1::bigint << 44) + 1, sha256('')"),
        (2, "null, (1::bigint << 44), '\\x00'"),
    ] {
        let refused = database
            .try_execute(&format!(
                "insert into ledger.seal (at, batch_id, book, prev_seq, seq, hash)
                values (now(), gen_random_uuid(), {book}, {values})"
            ))
            .await;
        let Err(sqlx::Error::Database(error)) = refused else { panic!("{values}: {refused:?}") };
        assert_eq!(error.constraint(), Some("seal_rules"), "{values}");
    }
    database.drop().await;
}
