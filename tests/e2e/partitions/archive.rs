//! Archives: the rows that stay, the reads that are refused, and requests that go on meanwhile.

use std::cell::Cell;
use std::time::Duration;

use http::Method;
use revwallet::ledger::account::AccountId;
use revwallet::ledger::money::Minor;
use revwallet::ledger::read;
use serde_json::json;
use sqlx::Connection;

use super::*;

/// Reads of archived transfers are refused with the reason, instead of answered in part.
async fn assert_old_transfers_are_refused(app: &TestApp, transfer: &str, wallet: &str) {
    assert_archived(app, &format!("/wallet/transfer/{transfer}")).await;
    assert_archived(app, &format!("/wallet/{wallet}/statement")).await;
    assert_archived(app, &format!("/wallet/balance/{wallet}?at=2026-01-01T00:00:00Z")).await;
    let refund = app.post("/wallet/refund", json!({ "transfer": transfer })).await;
    assert_eq!(refund.status, 410, "{}", refund.text);
    let history = app.get(&format!("/wallet/{wallet}/history")).await;
    assert_eq!(history.json(), json!([]));
    let next = history.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    assert_archived(app, &next).await;
}

#[tokio::test]
async fn an_archive_keeps_every_balance_state_and_open_hold() {
    run_with(&SETTINGS, async |app| {
        shrink_first_partition(app).await;
        let dormant = app.open_wallet("EUR", "100").await;
        let frozen = app.open_wallet("EUR", "7").await;
        let freeze = app.request(Method::PATCH, &format!("/wallet/{frozen}"));
        let freeze = freeze.json(&json!({ "freeze": true }));
        assert_eq!(app.send(freeze).await.status, 200);
        let busy = app.open_wallet("EUR", "0").await;
        let transfer = json!({ "from": dormant, "to": busy, "amount": "1" });
        let sent = app.post_with_key("/wallet/transfer", "sent", transfer.clone()).await;
        let sent = sent.json()["id"].as_str().unwrap().to_owned();
        let hold = |amount: &str| json!({ "id": dormant, "amount": amount, "memo": "room" });
        let ended = post_ok(app, "/wallet/hold", hold("30")).await["id"].clone();
        let open = post_ok(app, "/wallet/hold", hold("10")).await["id"].clone();
        let part = post_ok(app, "/wallet/hold", hold("20")).await["id"].clone();
        let [open, part, ended] = [open, part, ended].map(|id| id.as_str().unwrap().to_owned());
        let capture = json!({ "amount": "5", "to": busy, "final": false });
        let keyed = format!("/wallet/hold/{part}/capture");
        assert_eq!(app.post_with_key(&keyed, "part", capture.clone()).await.status, 200);
        post_ok(app, &format!("/wallet/hold/{ended}/void"), json!({})).await;
        fill(app, &busy, 2 * ROWS + 10).await;
        let before = [balance(app, &dormant).await, balance(app, &busy).await];
        let as_of = app.get(&format!("/wallet/{busy}/history?limit=1")).await.json();
        let as_of = as_of[0]["at"].as_str().unwrap().to_owned();

        let archived = archive(app).await;

        assert!(archived.contains("partition 0 is archived"), "{archived}");
        assert!(archived.contains("partition 100 is archived"), "{archived}");
        assert_eq!([balance(app, &dormant).await, balance(app, &busy).await], before);
        assert_eq!(before[0], (9_400, 6_900));
        let spend = json!({ "id": frozen, "amount": 1 });
        let refused = app.post("/wallet/withdraw", spend).await;
        assert_eq!(refused.json()["type"], "/problems/wallet-frozen", "{}", refused.text);

        assert_old_transfers_are_refused(app, &sent, &dormant).await;
        assert_eq!(app.get(&format!("/wallet/hold/{ended}")).await.json()["state"], "voided");
        let holds = app.get(&format!("/wallet/{dormant}/holds")).await.json();
        assert_eq!(holds.as_array().unwrap().len(), 3, "{holds}");
        let statement = app.get(&format!("/wallet/{busy}/statement?from={as_of}")).await.json();
        assert_eq!(cents(&statement["closing_balance"]), before[1].0);

        // A repeated request moves nothing, and another one under its key is refused.
        let repeated = app.post_with_key("/wallet/transfer", "sent", transfer).await;
        assert_eq!(repeated.status, 410, "{}", repeated.text);
        let changed = json!({ "from": dormant, "to": busy, "amount": "2" });
        let reused = app.post_with_key("/wallet/transfer", "sent", changed).await;
        assert_eq!(reused.json()["type"], "/problems/idempotency-key-reused", "{}", reused.text);
        let repeated = app.post_with_key(&keyed, "part", capture).await;
        assert_eq!(repeated.status, 410, "{}", repeated.text);
        assert_eq!(balance(app, &dormant).await, before[0]);

        // The holds go on where they were.
        let held = app.get(&format!("/wallet/hold/{part}")).await.json();
        assert_eq!((held["memo"].as_str(), cents(&held["captured"])), (Some("room"), 500));
        post_ok(app, &format!("/wallet/hold/{part}/capture"), json!({ "to": busy })).await;
        post_ok(app, &format!("/wallet/hold/{open}/void"), json!({})).await;
        post_ok(app, "/wallet/deposit", json!({ "id": dormant, "amount": "0.50" })).await;
        assert_eq!(balance(app, &dormant).await, (7_950, 7_950));

        let (code, report) = run_command(app, &["verify"]).await;
        assert_eq!(code, Some(0), "{report}");
        assert!(report.contains("the transfers up to "), "{report}");
        let (code, text) = run_command(app, &["partition", "restore", "0"]).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.contains("partition 0 is not the one of its book that was archived last"),
            "{text}"
        );
        restore_all(app).await;
        assert_eq!(app.get(&format!("/wallet/transfer/{sent}")).await.status, 200);
        assert_eq!(balance(app, &dormant).await.0, 7_950);
    })
    .await;
}

#[tokio::test]
async fn an_archive_waits_for_older_snapshots() {
    run_with(&SETTINGS, async |app| {
        shrink_first_partition(app).await;
        let dormant = app.open_wallet("EUR", "3").await;
        let wallet = app.open_wallet("EUR", "0").await;
        fill(app, &wallet, ROWS + 10).await;
        let mut db = app.database.connect().await;
        let mut snapshot = db.begin_with("begin isolation level repeatable read").await.unwrap();
        let account = AccountId(dormant.parse().unwrap());
        let taken = read::head_for(&mut snapshot, account).await.unwrap();

        let is_archived = Cell::new(false);
        let archived = async {
            archive(app).await;
            is_archived.set(true);
        };
        let reads = async {
            eventually("the archive has begun", async || {
                let mut db = app.database.connect().await;
                read::archived_until(&mut db, 1).await.unwrap().is_some()
            })
            .await;
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let balances = read::balances(&mut snapshot, &[account], read::END).await;
                assert_eq!(balances.unwrap(), [Minor(300)]);
                assert_eq!(balance(app, &dormant).await.0, 300);
            }
            assert!(!is_archived.get(), "the archive did not wait");
            assert_eq!(read::head_for(&mut snapshot, account).await.unwrap(), taken);
            snapshot.commit().await.unwrap();
        };
        tokio::join!(archived, reads);

        assert_eq!(balance(app, &dormant).await.0, 300);
        restore_all(app).await;
    })
    .await;
}

/// Sum of the balances, in cents.
async fn sum_of(app: &TestApp, wallets: &[String]) -> i64 {
    let mut sum = 0;
    for wallet in wallets {
        sum += balance(app, wallet).await.0;
    }
    sum
}

#[tokio::test]
async fn partitions_are_archived_and_restored_while_requests_go_on() {
    run_with(&SETTINGS, async |app| {
        shrink_first_partition(app).await;
        let mut wallets = Vec::new();
        for _ in 0..8 {
            wallets.push(app.open_wallet("EUR", "10").await);
        }
        fill(app, &wallets[0], ROWS + 50).await;
        let before = sum_of(app, &wallets).await;
        let is_done = Cell::new(false);
        let transfers = async {
            let mut n = 0;
            while !is_done.get() {
                n += 1;
                let pair = [&wallets[n % 8], &wallets[(n + 3) % 8]];
                let body = json!({ "from": pair[0], "to": pair[1], "amount": "0.01" });
                let path = format!("/wallet/{}", wallets[n % 8]);
                let (sent, read) = tokio::join!(app.post("/wallet/transfer", body), app.get(&path));
                assert_eq!((sent.status, read.status), (201, 200), "{} {}", sent.text, read.text);
                extend(app).await;
            }
        };
        let rounds = async {
            for _ in 0..4 {
                archive(app).await;
                restore_all(app).await;
            }
            is_done.set(true);
        };

        tokio::join!(transfers, rounds);

        assert_eq!(sum_of(app, &wallets).await, before);
    })
    .await;
}
