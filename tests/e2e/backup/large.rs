//! A book of a million transfers: how long its backup and its restore take. Short runs take a smaller one.

use std::io::Write;
use std::time::Instant;

use serde_json::json;

use super::{Site, wallet};
use crate::harness::is_long;

/// Transfers of one request.
const BATCH: usize = 10_000;

#[tokio::test]
async fn a_large_book_comes_back_whole() {
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
    let some = |from: usize| -> Vec<_> {
        let to = (from..from + BATCH).map(|n| &others[n % others.len()]);
        to.map(|to| json!({ "from": rich, "to": to, "amount": "0.01" })).collect()
    };
    // Half of it is in the base backup, the other half in the archived log.
    for from in (0..transfers / 2).step_by(BATCH) {
        let body = json!({ "atomic": true, "transfers": some(from) });
        assert_eq!(program.public.post("/wallet/batch", body).await.status, 201);
    }
    let began = Instant::now();
    let said = site.backup(&[]).await;
    let backed_up = began.elapsed();
    for from in (transfers / 2..transfers).step_by(BATCH) {
        let body = json!({ "atomic": true, "transfers": some(from) });
        assert_eq!(program.public.post("/wallet/batch", body).await.status, 201);
    }
    assert!(program.stop().await.success());

    let began = Instant::now();
    let (_, restored) = site.restore("new", &[]);

    assert!(restored.succeeded && restored.text.contains("all is well"), "{}", restored.text);
    // The openings and the first deposit.
    let expected = format!("{} transfers in", transfers + 102);
    assert!(restored.text.contains(&expected), "{expected}: {}", restored.text);
    writeln!(
        std::io::stderr(),
        "{transfers} transfers: backup {backed_up:?}, restore and verify {:?}\n{}\n{}",
        began.elapsed(),
        said.text,
        restored.text
    )
    .unwrap();
}
