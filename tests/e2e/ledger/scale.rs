//! Large books: more accounts than the cache holds, a writer that is a million transfers behind, a million postings to verify.

use crate::harness::{eventually, is_long, program};

use super::*;

/// Maximum memory that a verification may use.
const VERIFY_KB_MAX: u64 = 200_000;

fn pay(debit: AccountId, credit: AccountId, amount: i64) -> Leg {
    Leg::from(Action::Move { kind: TransferKind::Transfer, debit, credit, amount: Minor(amount) })
}

/// Starts a writer whose cache holds only eight accounts, so that it looks up almost every account.
async fn start_with_small_cache(database: &Database) -> Writer {
    let mut setup = Setup::new(database);
    setup.settings.cache_accounts_max = 8;
    setup.start().await
}

#[tokio::test]
async fn accounts_that_do_not_fit_into_the_cache_keep_their_balances() {
    const ACCOUNTS: i64 = 200;
    let database = Database::create().await;
    let writer = start_with_small_cache(&database).await;
    let world = AccountId::system(SystemRole::World, euro());
    for account in (1..=ACCOUNTS).map(AccountId) {
        let open = Leg::from(Action::Open { account, currency: euro() });
        let legs = vec![open, pay(world, account, 10)];
        writer.ledger.post(Posting { legs, ..Posting::default() }).await.unwrap();
    }

    let moves = (0..2_000_i64).map(|n| {
        let (from, to) = (n * 7 % ACCOUNTS + 1, n * 13 % ACCOUNTS + 1);
        let (from, to) =
            (AccountId(from), AccountId(if from == to { to % ACCOUNTS + 1 } else { to }));
        let posting = Posting { legs: vec![pay(from, to, 3)], ..Posting::default() };
        send_with_retry(&writer.ledger, posting)
    });
    let answers = join_all(moves).await;

    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(refused < 1_500, "{refused} were refused");
    writer.stop().await;
    let book = book(&database).await;
    let total: i64 = (1..=ACCOUNTS).map(|account| book.balance(account)).sum();
    assert_eq!(total, 10 * ACCOUNTS);
    database.drop().await;
}

#[tokio::test]
async fn lookups_of_accounts_and_keys_do_not_read_the_whole_book() {
    const ACCOUNTS: i64 = 200;
    let database = Database::create().await;
    // The statements of the writer are planned now, while the tables are empty.
    let writer = start_with_small_cache(&database).await;
    let world = AccountId::system(SystemRole::World, euro());
    for account in (1..=ACCOUNTS).map(AccountId) {
        let open = Leg::from(Action::Open { account, currency: euro() });
        writer.ledger.post(Posting { legs: vec![open], ..Posting::default() }).await.unwrap();
    }
    for _ in 0..2 {
        for account in (1..=ACCOUNTS).map(AccountId) {
            let key = HashedKey {
                hash: Uuid::from_u128(account.0.unsigned_abs().into()),
                content: Uuid::from_u128(7),
            };
            let legs = vec![pay(world, account, 1)];
            let posting = Posting { key: Some(key), legs, ..Posting::default() };
            send_with_retry(&writer.ledger, posting).await.unwrap();
        }
    }
    writer.stop().await;

    let mut db = database.connect().await;
    let mut read = 0;
    // Postgres publishes the statistics of a session some time after its end.
    eventually("the rows are counted", async || {
        let counted = sqlx::query_scalar::<_, i64>(
            "select sum(idx_tup_read)::bigint from pg_stat_user_indexes
            where schemaname = 'ledger' and indexrelname in ('posting_pkey', 'account_seq', 'account_pkey')",
        );
        read = counted.fetch_one(&mut db).await.unwrap();
        ACCOUNTS <= read
    })
    .await;

    assert!(read < 10 * ACCOUNTS, "the lookups read {read} rows");
    drop(db);
    database.drop().await;
}

/// Posts a million transfers, 20,000 in each posting.
async fn post_a_million_transfers(writer: &Writer) {
    let world = AccountId::system(SystemRole::World, euro());
    for _ in 0..50 {
        let legs = vec![pay(world, ACCOUNT, 1); 20_000];
        writer.ledger.post(Posting { legs, ..Posting::default() }).await.unwrap();
    }
}

#[tokio::test]
async fn a_writer_that_is_a_million_transfers_behind_decides_on_current_balances() {
    let database = Database::create().await;
    let idle = Setup::new(&database).start().await;
    idle.open().await;
    send_with_retry(&idle.ledger, deposit(1)).await.unwrap();
    let busy = Setup::new(&database).start().await;
    post_a_million_transfers(&busy).await;
    busy.stop().await;

    let refused = send_with_retry(&idle.ledger, withdraw(2, 1_000_002)).await;
    let emptied =
        join_all((3..8).map(|key| send_with_retry(&idle.ledger, withdraw(key, 200_000)))).await;

    // The refusals are based on the current balance, not on that of a million transfers ago.
    assert_eq!(refused.unwrap_err().reason(), "limit");
    assert!(emptied.iter().all(Result::is_ok), "{emptied:?}");
    let last = send_with_retry(&idle.ledger, withdraw(9, 2)).await.unwrap_err();
    let (available, required) = (Minor(1), Minor(2));
    assert_eq!(last, Refusal::InsufficientFunds { account: ACCOUNT, available, required });
    idle.stop().await;
    let (code, report, memory) = verify(&database);
    assert_eq!(code, Some(0), "{report}");
    assert!(report.starts_with("1000007 transfers"), "{report}");
    assert!(memory < VERIFY_KB_MAX, "verifying took {memory} kB");
    database.drop().await;
}

#[tokio::test]
async fn a_large_book_of_postings_with_keys_is_verified_end_to_end() {
    let postings: u128 = if is_long() { 1_000_000 } else { 50_000 };
    let database = Database::create().await;
    let mut setup = Setup::new(&database);
    setup.settings.batch_legs_max = 1_024;
    setup.settings.queue_max = 8_192;
    let writer = setup.start().await;
    writer.open().await;

    for start in (0..postings).step_by(5_000) {
        let keys = start..start + 5_000;
        let answers = join_all(keys.map(|key| writer.ledger.post(deposit(key)))).await;
        assert!(answers.iter().all(Result::is_ok));
    }

    writer.stop().await;
    let (code, report, memory) = verify(&database);
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains(&format!("{postings} with a key")), "{report}");
    assert!(memory < VERIFY_KB_MAX, "verifying took {memory} kB");
    database.drop().await;
}

/// Runs `revwallet verify`. Returns its exit code, its report, and its peak memory in kilobytes.
fn verify(database: &Database) -> (Option<i32>, String, u64) {
    let url = format!("--database-url={}", database.url);
    let mut command = program::command(&["verify", "--log-filter=error", &url]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (mut most, path) = (0, format!("/proc/{}/status", child.id()));
    let code = loop {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
        most = most.max(now.unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut report = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut report).unwrap();
    (code, report, most)
}
