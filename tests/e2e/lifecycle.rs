//! The program as a process on its embedded Postgres: started, stopped, killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::harness::program::{Folder, Program, postgres_of, run, signal};

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
