//! The program as a process on its embedded Postgres: started, stopped, killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::json;

use crate::harness::program::{Folder, Program, postgres_of, run, signal};
use crate::harness::{eventually, postgres};

#[tokio::test]
async fn nothing_is_left_behind_after_a_stop() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    assert!(!postgres_of(&folder.0).is_empty());

    let status = program.stop().await;

    assert_eq!(status.code(), Some(0));
    assert_eq!(postgres_of(&folder.0), Vec::<u32>::new());
}

#[tokio::test]
async fn a_stop_lets_open_connections_end() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    // The client keeps its connection open; it must not hold the program up.
    assert_eq!(program.public.get("/openapi.json").await.status, 200);

    assert_eq!(program.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_program_that_is_killed_ten_times_under_requests_always_comes_back() {
    let folder = Folder::new();
    for _ in 0..10 {
        let program = Program::start(&[&folder.setting()]).await;
        let answered = Arc::new(AtomicU32::new(0));
        let enough = Arc::new(AtomicBool::new(false));
        let (client, internal) = (program.public.clone(), program.internal.clone());
        let (count, stop) = (Arc::clone(&answered), Arc::clone(&enough));
        let requests = tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let status = client.try_status("/problems").await;
                // The second asks the database.
                let ready = internal.try_status("/readyz").await;
                if (status, ready) == (Some(200), Some(200)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        crate::harness::eventually("requests are answered", async || {
            answered.load(Ordering::Relaxed) > 5
        })
        .await;

        program.kill();

        enough.store(true, Ordering::Relaxed);
        requests.await.unwrap();
    }
    let last = Program::start(&[&folder.setting()]).await;
    assert!(last.stop().await.success());
    assert_eq!(postgres_of(&folder.0), Vec::<u32>::new());
}

#[tokio::test]
async fn a_second_program_joins_the_database_of_the_first() {
    let folder = Folder::new();
    let first = Program::start(&[&folder.setting()]).await;
    let second = Program::start(&[&folder.setting()]).await;

    assert_eq!(second.internal.get("/readyz").await.status, 200);
    assert!(second.stop().await.success());
    assert_eq!(first.internal.get("/readyz").await.status, 200, "it does not stop with the second");
    assert_eq!(run(&["migrate", &folder.setting()]).code, Some(0));
    assert!(first.stop().await.success());
    assert_eq!(postgres_of(&folder.0), Vec::<u32>::new());
}

#[tokio::test]
async fn a_postgres_that_is_killed_is_started_again() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;

    signal(crate::harness::program::postmaster_of(&folder.0), "KILL");

    crate::harness::eventually("it was noticed", async || {
        let metrics = program.internal.get("/metrics").await.text;
        metrics.contains("wallet_embedded_postgres_restarts_total 1")
    })
    .await;
    crate::harness::eventually("it serves again", async || {
        program.internal.try_status("/readyz").await == Some(200)
    })
    .await;
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn the_api_and_the_work_behind_it_can_be_processes_of_their_own() {
    let database = postgres::Database::create().await;
    let url = format!("--database-url={}", database.url);
    let words = [&url as &str, "--access=open", "--allow-unsafe-server"];
    let api = Program::start(&[&words[..], &["--only=api"]].concat()).await;
    let opened = api
        .public
        .post("/wallet", json!({ "owner": "a", "initial_balance": 5, "currency": "EUR" }))
        .await;
    assert_eq!(opened.status, 201, "{}", opened.text);
    let wallet = opened.json()["id"].clone();
    let body = json!({ "id": wallet, "amount": 1, "expires_in": 1 });
    let hold = api.public.post("/wallet/hold", body).await.json()["id"].clone();
    let look = format!("/wallet/hold/{}", hold.as_str().unwrap());
    eventually("the hold is due", async || {
        let capture = api.public.post(&format!("{look}/capture"), json!({ "amount": 9 })).await;
        capture.status == 409
    })
    .await;
    assert_eq!(api.public.get(&look).await.json()["state"], "open", "nobody works yet");

    let worker = Program::start(&[&words[..], &["--only=worker"]].concat()).await;

    eventually("the worker ends what is due", async || {
        api.public.get(&look).await.json()["state"] == "expired"
    })
    .await;
    eventually("and audits the book", async || {
        worker
            .internal
            .get("/metrics")
            .await
            .text
            .contains(r#"wallet_ledger_invariant_checks_total{check="chain",outcome="ok"}"#)
    })
    .await;
    assert!(worker.stop().await.success());
    assert!(api.stop().await.success());
    database.drop().await;
}

#[tokio::test]
async fn health_tells_whether_a_server_is_ready() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    let at = format!("--internal-listen={}", program.internal.address);
    assert_eq!(run(&["health", &at]).code, Some(0));
    assert!(program.stop().await.success());

    let ended = run(&["health", &at]);

    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("does not answer"), "{}", ended.stderr);
}
