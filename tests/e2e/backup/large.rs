//! Duration of backup and restore for a book of a million transfers, or of 20,000 in a short run.

use std::io::Write;
use std::time::Instant;

use serde_json::json;

use super::{Site, wallet};
use crate::harness::is_long;

/// Transfers per request.
const BATCH: usize = 10_000;

#[tokio::test]
async fn a_large_book_is_restored_completely() {
    let transfers: usize = if is_long() { 1_000_000 } else { 20_000 };
    let site = Site::new();
    let program = site.start_archiving().await;
    let rich = wallet(&program.public).await;
    let body = json!({ "id": rich, "amount": 1_000_000 });
    assert_eq!(program.public.post("/wallet/deposit", body).await.status, 200);
    let mut others = Vec::new();
    for _ in 0..100 {
        others.push(wallet(&program.public).await);
    }
    let transfers_from = |from: usize| -> Vec<_> {
        let to = (from..from + BATCH).map(|n| &others[n % others.len()]);
        to.map(|to| json!({ "from": rich, "to": to, "amount": "0.01" })).collect()
    };
    // One half is in the base backup, the other half in the WAL archive.
    for from in (0..transfers / 2).step_by(BATCH) {
        let body = json!({ "atomic": true, "transfers": transfers_from(from) });
        assert_eq!(program.public.post("/wallet/batch", body).await.status, 201);
    }
    let started = Instant::now();
    let backup = site.backup(&[]).await;
    let backup_time = started.elapsed();
    for from in (transfers / 2..transfers).step_by(BATCH) {
        let body = json!({ "atomic": true, "transfers": transfers_from(from) });
        assert_eq!(program.public.post("/wallet/batch", body).await.status, 201);
    }
    assert!(program.stop().await.success());

    let started = Instant::now();
    let (_, restored) = site.restore("new", &[]);

    assert!(restored.succeeded && restored.text.contains("no faults found"), "{}", restored.text);
    // 101 openings and the first deposit.
    let expected = format!("{} transfers in", transfers + 102);
    assert!(restored.text.contains(&expected), "{expected}: {}", restored.text);
    writeln!(
        std::io::stderr(),
        "{transfers} transfers: backup {backup_time:?}, restore and verify {:?}\n{}\n{}",
        started.elapsed(),
        backup.text,
        restored.text
    )
    .unwrap();
}
