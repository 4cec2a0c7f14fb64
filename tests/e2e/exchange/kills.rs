//! Processes that are killed, stopped and restarted while orders run: no order is stranded, none is carried out twice.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row;

use crate::harness::program::{self, Folder, Program, postmaster_of, signal};
use crate::harness::users::sign_in;
use crate::harness::{Client, check, eventually, eventually_within, is_long, postgres};

/// Settings under which a lost worker is replaced after a few seconds.
const QUICK: [&str; 4] = [
    "--access=open",
    "--allow-unsafe-server",
    "--order-call-timeout=500ms",
    "--order-unknown-interval=500ms",
];

/// A trader of a program, with money.
struct Trader {
    id: i64,
    client: Client,
}

async fn trader(program: &Program, name: &str, fiat: &str) -> Trader {
    let password = format!("test-secret of {name}");
    let body =
        json!({ "username": name, "email": format!("{name}@example.com"), "password": password });
    let registered = program.public.post("/exchange/register", body).await;
    let id = registered.json()["id"].as_i64().unwrap_or_else(|| panic!("{}", registered.text));
    let client = sign_in(&program.public, name, &password).await;
    let opened = client.post(&format!("/exchange/wallet/{id}"), json!({})).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    let path = format!("/exchange/wallet/{id}");
    let request = client.request(reqwest::Method::PATCH, &path);
    let funded = client.send(request.json(&json!({ "fiat_amount": fiat }))).await;
    assert_eq!(funded.status, 200, "{}", funded.text);
    Trader { id, client }
}

/// Places an order with a key, until there is an answer.
async fn place(trader: &Trader, side: &str, key: &str, body: &Value) -> i64 {
    let mut id = 0;
    eventually("the order is placed", async || {
        let request = trader
            .client
            .request(reqwest::Method::POST, &format!("/exchange/{side}/{}", trader.id));
        let request = request.header("idempotency-key", key).json(body);
        match Client::try_send(request).await {
            Ok(answer) if answer.status == 200 => {
                id = answer.json()["order_id"].as_i64().unwrap();
                true
            }
            Ok(answer) => {
                assert!([502, 503].contains(&answer.status), "{}", answer.text);
                false
            }
            Err(_) => false,
        }
    })
    .await;
    id
}

/// Waits until every order is over, and has those that are stuck retried.
async fn all_end(db: &mut sqlx::PgConnection, url: &str) {
    let mut open = Vec::new();
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_mins(3) {
        open = sqlx::query_as::<_, (i64, String, Option<String>, String, i32, i32, Option<String>)>(
            "select s.id, s.state, s.reason, t.state, t.attempts, t.undo_attempts, t.error
            from saga s join saga_step t on t.saga = s.id and t.step = s.step where s.ended_at is null",
        )
        .fetch_all(&mut *db)
        .await
        .unwrap();
        if open.is_empty() {
            return;
        }
        if open.iter().any(|(_, state, ..)| state == "stuck") {
            // The outside has refused to undo a trade: an operator has it asked again, under a new reference.
            let retried = program::run(&[
                url,
                "--allow-unsafe-server",
                "order",
                "retry",
                "--all",
                "stuck",
                "--reason",
                "test",
            ]);
            assert_eq!(retried.code, Some(0), "{}", retried.stderr);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("these orders are not over: {open:?}");
}

/// Asserts that the balances of users follow from their completed orders, that the hot wallets are empty, and that the
/// outside has carried out what the book says, once.
async fn assert_explained(db: &mut sqlx::PgConnection, deposit: i64) {
    let rows = sqlx::query(
        "select u.id,
            coalesce(sum(case o.side when 'buy' then -o.fiat else o.fiat end) filter (where s.state = 'completed'), 0)::bigint as fiat,
            coalesce(sum(case o.side when 'buy' then o.crypto else -o.crypto end) filter (where s.state = 'completed'), 0)::bigint as crypto,
            (select ledger.total_balance(1, w.id) from wallet w where w.app_user = u.id and w.currency = 'EUR') as has_fiat,
            (select ledger.total_balance(1, w.id) from wallet w where w.app_user = u.id and w.currency = 'BTC') as has_crypto
        from app_user u left join exchange_order o on o.app_user = u.id left join saga s on s.id = o.id
        where u.role = 'user' group by u.id",
    )
    .fetch_all(&mut *db)
    .await
    .unwrap();
    for row in rows {
        let column = |name: &str| row.get::<Option<i64>, _>(name).unwrap_or_default();
        assert_eq!(column("has_fiat"), deposit + column("fiat"), "user {}", column("id"));
        assert_eq!(column("has_crypto"), column("crypto"), "user {}", column("id"));
    }
    let states: Vec<(String, i64)> =
        sqlx::query_as("select state, count(*) from saga group by state order by state")
            .fetch_all(&mut *db)
            .await
            .unwrap();
    assert!(
        states.iter().all(|(state, _)| ["completed", "failed"].contains(&state.as_str())),
        "{states:?}"
    );
    // Trades that took effect: one for each completed order, and two or none for each that failed.
    let unbalanced: Vec<i64> = sqlx::query_scalar(
        "select s.id from saga s
        join lateral (
            select count(*) filter (where reference like '%-exchange-do-%') as traded,
                count(*) filter (where reference like '%-exchange-undo-%') as undone
            from simulated_call c
            where c.answer is not null and c.reference like replace(s.reference::text, '-', '') || '-%'
        ) c on true
        where case s.state when 'completed' then (c.traded, c.undone) <> (1, 0) else c.traded <> c.undone end",
    )
    .fetch_all(&mut *db)
    .await
    .unwrap();
    assert!(unbalanced.is_empty(), "the outside has done something else for {unbalanced:?}");
    let hot: Vec<i64> = sqlx::query_scalar(
        "select case when credit < 0 and credit > -(4::bigint << 32) and credit <= -(3::bigint << 32) then credit_balance else debit_balance end
        from (
            select distinct on (hot) * from ledger.transfer t
            cross join lateral (values (t.credit), (t.debit)) h (hot)
            where hot > -(4::bigint << 32) and hot <= -(3::bigint << 32)
            order by hot, seq desc, t.leg desc
        ) last",
    )
    .fetch_all(&mut *db)
    .await
    .unwrap();
    assert!(hot.iter().all(|balance| *balance == 0), "money is left in the hot wallets: {hot:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_survive_faults_and_kills_of_workers_and_servers() {
    let database = postgres::Database::create().await;
    let url = format!("--database-url={}", database.url);
    let base = [&QUICK[..], &[&url, "--simulated-failures=0.3", "--order-attempts=6"]].concat();
    let api = [&base[..], &["--only=api"]].concat();
    let worker = [&base[..], &["--only=worker"]].concat();
    let mut server = Program::start(&api).await;
    let mut workers = vec![Program::start(&worker).await, Program::start(&worker).await];
    let mut traders = Vec::new();
    for n in 0..4 {
        traders.push(trader(&server, &format!("trader{n}"), "100000").await);
    }
    let rounds = if is_long() { 20 } else { 4 };
    for round in 0..rounds {
        let placed = traders.iter().enumerate().map(|(n, trader)| {
            let key = format!("{round}-{n}");
            async move {
                for order in 0..12 {
                    let (side, body) = match order % 4 {
                        3 => ("sell", json!({ "crypto_amount": 0.25 })),
                        _ => ("buy", json!({ "fiat_amount": 7.77 })),
                    };
                    let request = trader
                        .client
                        .request(reqwest::Method::POST, &format!("/exchange/{side}/{}", trader.id));
                    let request =
                        request.header("idempotency-key", format!("{key}-{order}")).json(&body);
                    // The server may be killed meanwhile, and the user may have no crypto yet.
                    let _maybe = Client::try_send(request).await;
                }
            }
        });
        let kill = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let victim = workers.remove(0);
            victim.kill();
            if round % 2 == 1 {
                server.signal("KILL");
            }
        };
        tokio::join!(futures_util::future::join_all(placed), kill);
        workers.push(Program::start(&worker).await);
        if round % 2 == 1 {
            server = Program::start(&api).await;
            for (n, trader) in traders.iter_mut().enumerate() {
                let name = format!("trader{n}");
                trader.client =
                    sign_in(&server.public, &name, &format!("test-secret of {name}")).await;
            }
        }
    }
    let mut db = database.connect().await;
    let count: i64 =
        sqlx::query_scalar("select count(*) from saga").fetch_one(&mut db).await.unwrap();
    assert!(count > 10 * rounds, "{count} orders");
    all_end(&mut db, &url).await;
    assert_explained(&mut db, 10_000_000).await;
    let failed: i64 = sqlx::query_scalar("select count(*) from saga where state = 'failed'")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert!(0 < failed && failed < count, "{failed} of {count} orders failed");
    for program in workers.into_iter().chain([server]) {
        assert!(program.stop().await.success());
    }
    check::book(&database).await;
    drop(db);
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_wakes_up_after_another_took_over_changes_nothing() {
    let database = postgres::Database::create().await;
    let url = format!("--database-url={}", database.url);
    let base = [&QUICK[..], &[&url]].concat();
    let server = Program::start(&[&base[..], &["--only=api"]].concat()).await;
    let worker = [&base[..], &["--only=worker"]].concat();
    let sleeper = Program::start(&worker).await;
    let ada = trader(&server, "ada", "100").await;
    // Each call takes a while, so that the worker is stopped in the middle of a step.
    database.execute("update simulated_outside set latency_seconds = 0.4").await;
    let id = place(&ada, "buy", "k", &json!({ "fiat_amount": 30 })).await;
    let mut db = database.connect().await;
    eventually("the worker has claimed it", async || {
        let running = "select count(*) from saga_step where step = 1 and state = 'running'";
        sqlx::query_scalar::<_, i64>(running).fetch_one(&mut db).await.unwrap() == 1
    })
    .await;
    sleeper.signal("STOP");
    let fence: i64 = sqlx::query_scalar("select fence from saga").fetch_one(&mut db).await.unwrap();
    let second = Program::start(&worker).await;
    database.execute("update simulated_outside set latency_seconds = 0").await;
    eventually("the other worker has completed it", async || {
        let state: String =
            sqlx::query_scalar("select state from saga").fetch_one(&mut db).await.unwrap();
        state == "completed"
    })
    .await;
    let after: i64 = sqlx::query_scalar("select fence from saga").fetch_one(&mut db).await.unwrap();
    assert!(fence < after, "the claim was taken over");
    sleeper.signal("CONT");
    eventually("the first worker has noticed", async || {
        let metrics = sleeper.internal.get("/metrics").await.text;
        metrics.lines().any(|line| line == "wallet_saga_claims_lost_total 1")
    })
    .await;
    let order = ada.client.get(&format!("/exchange/order/{id}")).await.json();
    assert_eq!(order["state"], "completed");
    assert_explained(&mut db, 10_000).await;
    for program in [sleeper, second, server] {
        assert!(program.stop().await.success());
    }
    check::book(&database).await;
    drop(db);
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_go_on_after_postgres_was_killed_again_and_again() {
    let folder = Folder::new();
    let data = folder.setting();
    let program =
        Program::start(&[&QUICK[..], &[&data, "--simulated-latency=20ms"]].concat()).await;
    let ada = trader(&program, "ada", "10000").await;
    let mut ids = Vec::new();
    for round in 0..3 {
        for order in 0..10 {
            let key = format!("{round}-{order}");
            ids.push(place(&ada, "buy", &key, &json!({ "fiat_amount": 10 })).await);
            if order == 5 {
                signal(postmaster_of(&folder.0), "KILL");
            }
        }
    }
    let mut completed = 0;
    for id in ids {
        let mut state = String::new();
        eventually_within(Duration::from_mins(2), "the order is over", async || {
            let Ok(answer) = Client::try_send(
                ada.client.request(reqwest::Method::GET, &format!("/exchange/order/{id}")),
            )
            .await
            else {
                return false;
            };
            if answer.status != 200 {
                return false;
            }
            state = answer.json()["state"].as_str().unwrap().to_owned();
            ["completed", "failed"].contains(&state.as_str())
        })
        .await;
        completed += i64::from(state == "completed");
    }
    assert_eq!(completed, 30);
    let wallet = ada.client.get(&format!("/exchange/wallet/{}", ada.id)).await.text;
    let expected = (format!("{}.00", 10_000 - 10 * completed), format!("{completed}.00000000"));
    assert_eq!(super::amounts(&wallet), expected);
    assert!(program.stop().await.success());
}
