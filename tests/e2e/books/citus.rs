//! Books on a Citus cluster. These tests run with `scripts/test --citus`, and are skipped without it.

use std::io::Write;
use std::time::Instant;

use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::*;
use crate::harness::{eventually_within, postgres};

/// Number of transfers between the books.
const TRANSFERS: u128 = 400;

/// Maximum number of crashes until the transfers have ended.
const CRASHES_MAX: usize = 200;

/// Longest time that a client sends one transfer again and again.
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Creates a database with this number of books on the cluster; `None`, with a note, if the test run has no cluster.
async fn distributed_books(count: i32) -> Option<Database> {
    if postgres::is_distributed() {
        return Some(books(count).await);
    }
    let note = "skipped: scripts/test --citus runs this test, where Citus is installed";
    drop(writeln!(std::io::stderr(), "{note}"));
    None
}

/// Returns a book that is stored on another worker than book 1.
async fn book_of_another_worker(database: &Database, count: i32) -> i32 {
    sqlx::query_scalar(
        "with place as (
            select b.book, p.nodename
            from ledger.book b
            join pg_dist_shard_placement p
                on p.shardid = get_shard_id_for_distribution_column('ledger.seal', b.book)
            where b.book <= $1
        )
        select o.book from place o join place f on f.book = 1 and f.nodename <> o.nodename
        order by o.book limit 1",
    )
    .bind(count)
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap()
}

/// The tables of a book on its worker.
struct Shards {
    worker: PgConnection,
    tables: Vec<(String, String)>,
    /// The number by which Citus knows the worker.
    group: i32,
}

impl Shards {
    async fn open(database: &Database, book: i32) -> Self {
        let places: Vec<(String, String, i32, i64)> = sqlx::query_as(
            "select t.name, p.nodename, n.groupid, p.shardid
            from unnest(array['posting', 'seal', 'transfer']) t (name)
            join pg_dist_shard_placement p
                on p.shardid = get_shard_id_for_distribution_column(format('ledger.%I', t.name), $1)
            join pg_dist_node n using (nodename, nodeport)",
        )
        .bind(book)
        .fetch_all(&mut database.connect().await)
        .await
        .unwrap();
        let (_, host, group, _) = &places[0];
        let worker = database.connect_to_worker(host).await;
        let tables = places
            .iter()
            .map(|(name, _, _, shard)| (format!("{{{name}}}"), format!("ledger.{name}_{shard}")));
        let mut shards = Self { tables: tables.collect(), worker, group: *group };
        // The triggers refuse changes of the ledger.
        for table in ["{posting}", "{seal}", "{transfer}"] {
            shards.execute(&format!("alter table {table} disable trigger all")).await;
        }
        shards
    }

    async fn execute(&mut self, statement: &str) {
        let mut statement = statement.to_owned();
        for (name, table) in &self.tables {
            statement = statement.replace(name, table);
        }
        self.worker.execute(AssertSqlSafe(statement)).await.unwrap();
    }

    /// Runs inserts as part of a transaction whose coordinator fails before it ends the transaction on the worker.
    async fn interrupt(&mut self, inserts: &str, transaction: u32) {
        let prepare = format!("prepare transaction 'citus_0_1_{transaction}_1'");
        self.execute(&format!("begin; {inserts}; {prepare}")).await;
    }

    /// Records at the coordinator that it has committed an interrupted transaction.
    async fn record_commit(&self, database: &Database, transaction: u32) {
        let group = self.group;
        let record = format!(
            "insert into pg_dist_transaction (groupid, gid) values ({group}, 'citus_0_1_{transaction}_1')"
        );
        database.execute(&record).await;
    }

    /// Makes the commit of all idempotency keys look interrupted.
    async fn interrupt_keys(&mut self, database: &Database, transaction: u32) {
        self.execute("create table saved as select * from {posting}; delete from {posting}").await;
        self.interrupt("insert into {posting} select * from saved", transaction).await;
        self.record_commit(database, transaction).await;
    }

    /// Makes the commit of the last batch look interrupted.
    async fn interrupt_last_batch(&mut self, database: &Database, book: i32, transaction: u32) {
        let last = "seq > (select max(prev_seq) from saved_seal)";
        self.execute(&format!(
            "create table saved_seal as select * from {{seal}} where book = {book} order by seq desc limit 1;
            create table saved as select * from {{transfer}} where book = {book} and {last};
            delete from {{transfer}} where book = {book} and {last};
            delete from {{seal}} where book = {book} and {last}"
        ))
        .await;
        let inserts = "insert into {seal} select * from saved_seal; insert into {transfer} select * from saved";
        self.interrupt(inserts, transaction).await;
        self.record_commit(database, transaction).await;
    }
}

#[tokio::test]
async fn interrupted_commits_are_completed_and_other_interrupted_transactions_rolled_back() {
    let Some(database) = distributed_books(2).await else { return };
    let mut shards = Shards::open(&database, 1).await;
    for n in [901, 902] {
        let id = Uuid::from_u128(n);
        let insert = format!("insert into {{posting}} values ({n}, {n}, '{id}', '{id}', 1)");
        shards.interrupt(&insert, u32::try_from(n).unwrap()).await;
    }
    shards.record_commit(&database, 901).await;

    database.execute("select ledger.complete_commits(array[1])").await;

    let mut db = database.connect().await;
    let stored: Vec<i64> = sqlx::query_scalar("select first_seq from ledger.posting")
        .fetch_all(&mut db)
        .await
        .unwrap();
    assert_eq!(stored, [901]);
    let open = "select count(*) from pg_prepared_xacts where database = current_database()";
    let open: i64 = sqlx::query_scalar(open).fetch_one(&mut shards.worker).await.unwrap();
    assert_eq!(open, 0);
    drop((db, shards));
    database.drop().await;
}

#[tokio::test]
async fn a_posting_is_not_refused_while_the_commit_of_its_key_is_open() {
    let Some(database) = distributed_books(2).await else { return };
    let process = Process::start(&database, 2).await;
    let payer = customer(1, 1);
    process.open(&[payer]).await;
    process.deposit(payer, 10).await;
    let payout = || keyed(1, 7, pay(TransferKind::Withdrawal, payer, world(), 10));
    let first = process.ledger.post(payout()).await.unwrap();
    process.stop().await;

    let mut shards = Shards::open(&database, 1).await;
    shards.interrupt_keys(&database, 903).await;
    // This process has not seen the first posting, so it finds that the money does not suffice.
    let process = Process::start(&database, 2).await;
    let again = process.ledger.post(payout()).await.unwrap();

    assert!(again.replayed);
    assert_eq!(again.first_seq, first.first_seq);
    process.stop().await;
    drop(shards);
    assert_verified(&database).await;
    database.drop().await;
}

#[tokio::test]
async fn a_key_is_found_while_its_commit_is_open() {
    let Some(database) = distributed_books(2).await else { return };
    let process = Process::start(&database, 2).await;
    let payee = customer(1, 1);
    process.open(&[payee]).await;
    let deposit = keyed(1, 7, pay(TransferKind::Deposit, world(), payee, 10));
    let key = deposit.key.unwrap();
    let first = process.ledger.post(deposit).await.unwrap();

    let mut shards = Shards::open(&database, 1).await;
    shards.interrupt_keys(&database, 904).await;
    let found = process.ledger.find(key).await.unwrap();

    assert_eq!(found.map(|posted| posted.first_seq), Some(first.first_seq));
    process.stop().await;
    drop(shards);
    assert_verified(&database).await;
    database.drop().await;
}

#[tokio::test]
async fn money_whose_commit_is_open_can_be_spent() {
    let Some(database) = distributed_books(8).await else { return };
    let other = book_of_another_worker(&database, 8).await;
    let (payee, saver) = (customer(1, 1), customer(other, 1));
    let process = Process::start(&database, 8).await;
    process.open(&[payee, saver]).await;
    process.deposit(saver, 10).await;
    let mut shards = Shards::open(&database, other).await;

    // The writer for several books reads the accounts from the database.
    shards.interrupt_last_batch(&database, other, 905).await;
    process
        .ledger
        .post(Posting { key: None, ..keyed(1, 7, transfer(saver, payee, 10)) })
        .await
        .unwrap();
    process.post(pay(TransferKind::Deposit, world(), saver, 20)).await.unwrap();
    process.stop().await;
    // A new process knows no account.
    shards.execute("drop table saved, saved_seal").await;
    shards.interrupt_last_batch(&database, other, 906).await;
    let process = Process::start(&database, 8).await;
    process.post(pay(TransferKind::Withdrawal, saver, world(), 20)).await.unwrap();

    process.stop().await;
    drop(shards);
    assert_eq!(balance(&database, payee).await, 10);
    assert_eq!(balance(&database, saver).await, 0);
    assert_verified(&database).await;
    database.drop().await;
}

/// Returns whether the program takes the failure of a server for a fault of its own.
fn is_fault(error: &PostError) -> bool {
    matches!(error, PostError::Internal)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_of_servers_lose_and_double_nothing() {
    let Some(database) = distributed_books(8).await else { return };
    let other = book_of_another_worker(&database, 8).await;
    let (from, to, saver) = (customer(1, 1), customer(other, 1), customer(1, 2));
    let process = Process::start(&database, 8).await;
    process.open(&[from, to, saver]).await;
    process.deposit(from, 1_000).await;

    let transfers = async {
        let mut retries = 0;
        for key in 0..TRANSFERS {
            let started = Instant::now();
            while let Err(error) = process.ledger.post(keyed(key, 7, transfer(from, to, 1))).await {
                assert!(!is_fault(&error), "transfer {key}: {error:?}");
                assert!(started.elapsed() < RETRY_MAX, "transfer {key}: {error:?}");
                retries += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        retries
    };
    // Deposits without a key: they are not sent again, so each response must be true.
    let (mut saved, mut unknown) = (0, 0);
    let deposits = async {
        loop {
            match process.post(pay(TransferKind::Deposit, world(), saver, 1)).await {
                Ok(_) => saved += 1,
                Err(PostError::Unknown) => unknown += 1,
                Err(error) => {
                    assert!(!is_fault(&error), "{error:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    };
    let crashes = async {
        for count in 0..CRASHES_MAX {
            tokio::time::sleep(Duration::from_millis(700)).await;
            postgres::crash_server(count % 3).await;
        }
    };
    let retries = tokio::select! {
        retries = transfers => retries,
        () = crashes => panic!("the transfers did not end"),
        () = deposits => unreachable!("deposits do not end"),
    };

    assert!(retries > 0 && saved > 0, "no crash met a transfer");
    process.stop().await;
    let moved = i64::try_from(TRANSFERS).unwrap();
    eventually_within(RETRY_MAX, "both books have all transfers", async || {
        balance(&database, from).await == 1_000 - moved && balance(&database, to).await == moved
    })
    .await;
    // The last deposit may have been canceled while it was written.
    let found = balance(&database, saver).await;
    assert!((saved..=saved + unknown + 1).contains(&found), "{found}: {saved} {unknown}");
    assert_verified(&database).await;
    database.drop().await;
}
