//! The program as a process with an embedded Postgres: start, shutdown, kill.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::json;

use crate::harness::program::{Folder, Program, postgres_of, run, signal};
use crate::harness::{eventually, postgres};

#[tokio::test]
async fn a_shutdown_leaves_no_process_behind() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    assert!(!postgres_of(&folder.0).is_empty());

    let status = program.stop().await;

    assert_eq!(status.code(), Some(0));
    assert_eq!(postgres_of(&folder.0), Vec::<u32>::new());
}

#[tokio::test]
async fn a_shutdown_is_not_delayed_by_an_idle_connection() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    // The client keeps its connection open; it must not delay the shutdown.
    assert_eq!(program.public.get("/openapi.json").await.status, 200);

    assert_eq!(program.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_program_that_is_killed_ten_times_under_load_always_restarts() {
    let folder = Folder::new();
    for _ in 0..10 {
        let program = Program::start(&[&folder.setting()]).await;
        let succeeded = Arc::new(AtomicU32::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let (client, internal) = (program.public.clone(), program.internal.clone());
        let (count, stop) = (Arc::clone(&succeeded), Arc::clone(&done));
        let requests = tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let status = client.try_status("/problems").await;
                // Readiness depends on the database.
                let ready = internal.try_status("/readyz").await;
                if (status, ready) == (Some(200), Some(200)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        crate::harness::eventually("requests succeed", async || {
            succeeded.load(Ordering::Relaxed) > 5
        })
        .await;

        program.kill();

        done.store(true, Ordering::Relaxed);
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
    assert_eq!(
        first.internal.get("/readyz").await.status,
        200,
        "the database does not stop with the second program"
    );
    assert_eq!(run(&["migrate", &folder.setting()]).code, Some(0));
    assert!(first.stop().await.success());
    assert_eq!(postgres_of(&folder.0), Vec::<u32>::new());
}

#[tokio::test]
async fn a_killed_postgres_is_restarted() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;

    signal(crate::harness::program::postmaster_of(&folder.0), "KILL");

    crate::harness::eventually("the restart is counted", async || {
        let metrics = program.internal.get("/metrics").await.text;
        metrics.contains("wallet_embedded_postgres_restarts_total 1")
    })
    .await;
    crate::harness::eventually("the program is ready again", async || {
        program.internal.try_status("/readyz").await == Some(200)
    })
    .await;
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn api_and_worker_can_run_as_separate_processes() {
    let database = postgres::Database::create().await;
    let url = format!("--database-url={}", database.url);
    let arguments = [&url as &str, "--access=open", "--allow-unsafe-server"];
    let api = Program::start(&[&arguments[..], &["--only=api"]].concat()).await;
    let opened = api
        .public
        .post("/wallet", json!({ "owner": "a", "initial_balance": 5, "currency": "EUR" }))
        .await;
    assert_eq!(opened.status, 201, "{}", opened.text);
    let wallet = opened.json()["id"].clone();
    let body = json!({ "id": wallet, "amount": 1, "expires_in": 1 });
    let hold = api.public.post("/wallet/hold", body).await.json()["id"].clone();
    let hold_path = format!("/wallet/hold/{}", hold.as_str().unwrap());
    eventually("the hold has reached its expiry", async || {
        let capture =
            api.public.post(&format!("{hold_path}/capture"), json!({ "amount": 9 })).await;
        capture.status == 409
    })
    .await;
    assert_eq!(api.public.get(&hold_path).await.json()["state"], "open", "no worker runs yet");

    let worker = Program::start(&[&arguments[..], &["--only=worker"]].concat()).await;

    eventually("the worker expires the hold", async || {
        api.public.get(&hold_path).await.json()["state"] == "expired"
    })
    .await;
    eventually("the worker audits the book", async || {
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
async fn requests_have_half_of_the_cores_or_as_many_threads_as_the_settings_say() {
    let database = postgres::Database::create().await;
    let url = format!("--database-url={}", database.url);
    let half = (std::thread::available_parallelism().unwrap().get() / 2).max(1);
    for (setting, threads) in [(None, half), (Some("--threads=3"), 3)] {
        let arguments = [Some(&url as &str), Some("--allow-unsafe-server"), setting];
        let arguments: Vec<&str> = arguments.into_iter().flatten().collect();
        let program = Program::start(&arguments).await;

        let metrics = program.internal.get("/metrics").await.text;

        let found = format!("\ntokio_workers_count{{runtime=\"main\"}} {threads}\n");
        assert!(metrics.contains(&found), "{setting:?}: {metrics}");
        assert!(program.stop().await.success());
    }
    database.drop().await;
}

#[tokio::test]
async fn the_health_command_reports_whether_a_server_is_ready() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    let address = format!("--internal-listen={}", program.internal.address);
    assert_eq!(run(&["health", &address]).code, Some(0));
    assert!(program.stop().await.success());

    let exit = run(&["health", &address]);

    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("does not respond"), "{}", exit.stderr);
}
