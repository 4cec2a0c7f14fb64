//! External faults: a process that is stopped while it holds the book's lock, a full disk, a read-only server.

use std::process::Command;

use serde_json::json;

use crate::harness::program::{Folder, Program};
use crate::harness::{Client, eventually, run};

async fn open(client: &Client) -> String {
    let answer = client.post("/wallet", json!({ "owner": "a", "currency": "EUR" })).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Deposits 1. Returns whether it was acknowledged; the only other valid status is 503.
async fn deposit(client: &Client, wallet: &str, key: u32) -> bool {
    let request = client.request(reqwest::Method::POST, "/wallet/deposit");
    let request = request.header("idempotency-key", format!("key-{key}"));
    let answer = Client::try_send(request.json(&json!({ "id": wallet, "amount": 1 }))).await;
    match answer {
        Ok(answer) if answer.status == 200 => true,
        Ok(answer) => {
            assert_eq!(answer.status, 503, "{}", answer.text);
            false
        }
        Err(_) => false,
    }
}

async fn balance(client: &Client, wallet: &str) -> f64 {
    let mut balance = None;
    eventually("the wallet can be read", async || {
        balance = client.get(&format!("/wallet/{wallet}")).await.json()["balance"].as_f64();
        balance.is_some()
    })
    .await;
    balance.unwrap()
}

/// Retries the deposits of these keys until each of them is acknowledged.
async fn send_with_retry(client: &Client, wallet: &str, keys: impl Iterator<Item = u32>) {
    for key in keys {
        eventually("the deposit is acknowledged", async || deposit(client, wallet, key).await)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_stopped_while_it_holds_the_lock_blocks_others_only_briefly() {
    let folder = Folder::new();
    // Both processes have to write.
    let setting = folder.setting();
    let start = || async { Program::start(&[&setting, "--ledger-forwarding=false"]).await };
    let (owner, stopped, other) = (start().await, start().await, start().await);
    let wallet = open(&owner.public).await;
    let socket = socket_of(&folder);
    let mut next = 0;

    // Both processes write, so both lock the book; the stop has to hit the first one while it holds the lock.
    let mut held = false;
    for _ in 0..200 {
        let keys: Vec<u32> = (next..next + 40).collect();
        next += 40;
        let load = keys.iter().map(|key| {
            let client = if key % 2 == 0 { &stopped.public } else { &other.public };
            deposit(client, &wallet, *key)
        });
        let stop = async {
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            stopped.signal("STOP");
            held = is_book_locked(&socket).await;
            if !held {
                stopped.signal("CONT");
            }
        };
        let waiting = async { futures_util::future::join_all(load).await };
        if tokio::time::timeout(std::time::Duration::from_millis(500), async {
            tokio::join!(waiting, stop)
        })
        .await
        .is_err()
            && held
        {
            break;
        }
        assert!(!held, "requests completed although the book is locked");
    }
    assert!(held, "the process was never stopped while it held the lock");

    let begin = std::time::Instant::now();
    send_with_retry(&other.public, &wallet, 100_000..100_020).await;
    let waited = begin.elapsed();

    assert!(
        waited < std::time::Duration::from_secs(20),
        "the server must terminate the idle transaction"
    );
    stopped.signal("CONT");
    send_with_retry(&stopped.public, &wallet, 200_000..200_020).await;
    send_with_retry(&other.public, &wallet, 0..next).await;
    let expected = f64::from(next + 40);
    assert!(
        (balance(&owner.public, &wallet).await - expected).abs() < 0.5,
        "each deposit must count once"
    );
    assert!(stopped.stop().await.success() && other.stop().await.success());
    assert!(owner.stop().await.success());
}

/// The socket folder of the cluster in this folder.
fn socket_of(folder: &Folder) -> String {
    let file = std::fs::read_to_string(folder.0.join("postgres/postmaster.pid")).unwrap();
    file.lines().nth(4).unwrap().to_owned()
}

/// Returns whether a transaction of the ledger stays idle, and so keeps the book locked.
async fn is_book_locked(socket: &str) -> bool {
    use sqlx::Connection;
    let url = format!("postgres://revwallet@localhost/revwallet?host={socket}");
    let mut db = sqlx::PgConnection::connect(&url).await.unwrap();
    // Checked twice, to exclude a transaction that is between two statements.
    for _ in 0..2 {
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        let idle: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where application_name = 'revwallet ledger' and state = 'idle in transaction'",
        )
        .fetch_one(&mut db)
        .await
        .unwrap();
        if idle == 0 {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_answers_503_and_loses_no_posting() {
    let folder = Folder::new();
    let disk = folder.0.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=160m,mode=0755", "tmpfs"])
        .arg(&disk)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        #[expect(clippy::print_stderr, reason = "tells the developer that the test was skipped")]
        {
            eprintln!("skipped: mounting a small disk requires root");
        }
        return;
    }
    let _unmount = Unmount(disk.clone());
    let setting = format!("--data-dir={}", disk.display());
    let program = Program::start(&[&setting]).await;
    let wallet = open(&program.public).await;
    send_with_retry(&program.public, &wallet, 0..100).await;

    let filler = disk.join("filler");
    let full = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k"])
        .arg(format!("of={}", filler.display()))
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!full.success(), "the filler did not fill the disk");
    let (mut next, mut refused) = (100, 0);
    let mut acknowledged: Vec<u32> = (0..100).collect();
    while refused < 50 {
        let keys: Vec<u32> = (next..next + 50).collect();
        next += 50;
        let answers = keys.iter().map(|key| deposit(&program.public, &wallet, *key));
        for (key, done) in keys.iter().zip(futures_util::future::join_all(answers).await) {
            if done { acknowledged.push(*key) } else { refused += 1 }
        }
        assert!(next < 2_000_000, "no deposit was refused although the disk is full");
    }
    std::fs::remove_file(&filler).unwrap();

    send_with_retry(&program.public, &wallet, [next].into_iter()).await;
    let keys = acknowledged.len();
    send_with_retry(&program.public, &wallet, acknowledged.into_iter()).await;
    let now = balance(&program.public, &wallet).await;
    let least = f64::from(u32::try_from(keys).unwrap() + 1);
    assert!(now >= least - 0.5, "the balance is {now}, but {least} deposits were acknowledged");
    send_with_retry(&program.public, &wallet, 0..=next).await;
    let all = f64::from(next + 1);
    assert!(
        (balance(&program.public, &wallet).await - all).abs() < 0.5,
        "each deposit must count once"
    );
    assert!(program.stop().await.success());
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        for process in crate::harness::program::postgres_of(&self.0) {
            crate::harness::program::signal(process, "KILL");
        }
        let _status = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_read_only_server_answers_503_until_it_is_writable_again() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "5").await;
        let change = async |setting: &str| {
            let mut db = app.database.connect().await;
            let name: String =
                sqlx::query_scalar("select current_database()").fetch_one(&mut db).await.unwrap();
            let statement =
                format!("alter database {name} set default_transaction_read_only = {setting}");
            for statement in ["set default_transaction_read_only = off".to_owned(), statement] {
                sqlx::Executor::execute(&mut db, sqlx::AssertSqlSafe(statement)).await.unwrap();
            }
            app.database.end_other_sessions().await;
        };

        change("on").await;

        eventually("deposits are refused", async || !deposit(app, &wallet, 1).await).await;
        eventually("reads work", async || {
            app.get(&format!("/wallet/{wallet}")).await.status == 200
        })
        .await;
        change("off").await;
        send_with_retry(app, &wallet, 1..5).await;
        assert!((balance(app, &wallet).await - 9.0).abs() < 0.01);
    })
    .await;
}
