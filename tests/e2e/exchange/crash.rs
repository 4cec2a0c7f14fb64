//! Crashes between any two statements of an order: the order completes or is undone, and everything happens once.
//!
//! A trigger ends the session of the program at a chosen statement, as a crash would.

use serde_json::json;

use super::{balances, fault, hot_wallets, order_id, reaches, texts, trader};
use crate::harness::users::User;
use crate::harness::{TestApp, eventually, run_with};

/// Tables that orders write.
const TABLES: [&str; 8] = [
    "ledger.posting",
    "ledger.transfer",
    "ledger.seal",
    "ledger.event",
    "saga",
    "saga_step",
    "exchange_order",
    "simulated_call",
];

async fn prepare(app: &TestApp) {
    let statements = "create sequence crash_point;
        grant usage on sequence crash_point to public;
        create function crash() returns trigger language plpgsql as $$
        begin
            if nextval('public.crash_point') = tg_argv[0]::bigint then
                perform pg_terminate_backend(pg_backend_pid());
                perform pg_sleep(60);
            end if;
            return case when tg_op = 'DELETE' then old else new end;
        end $$";
    app.database.execute(statements).await;
}

/// Places an order that crashes when the `n`th row of a table is written; returns whether it came to that.
async fn crash(
    (app, ada): (&TestApp, &User),
    (table, timing, n): (&str, &str, i64),
    state: &str,
) -> bool {
    let arm = format!(
        "alter sequence crash_point restart;
         create trigger crash {timing} insert or update or delete on {table} for each row execute function crash('{n}')"
    );
    app.database.execute(&arm).await;
    let key = format!("{table}-{timing}-{n}-{state}");
    let path = format!("/exchange/buy/{}", ada.id);
    let mut answer = None;
    eventually("the repeated request succeeds", async || {
        let placed = ada.post_with_key(&path, &key, json!({ "fiat_amount": 10 })).await;
        let is_done = placed.status == 200;
        answer = Some(placed);
        is_done
    })
    .await;
    reaches(ada, order_id(&answer.unwrap()), state).await;
    app.database.execute(&format!("drop trigger crash on {table}")).await;
    let mut db = app.database.connect().await;
    let fired: i64 =
        sqlx::query_scalar("select last_value from crash_point").fetch_one(&mut db).await.unwrap();
    n <= fired
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_survives_a_crash_at_every_statement() {
    let settings = ["--order-call-timeout=500ms"];
    run_with(&settings, async |app| {
        let ada = trader(app, "ada", 1_000_000).await;
        prepare(app).await;
        let (mut fired, mut completed) = (0, 0);
        for table in TABLES {
            for timing in ["before", "after"] {
                for n in [1, 2, 4] {
                    fired += usize::from(crash((app, &ada), (table, timing, n), "completed").await);
                    completed += 1;
                }
                if ["saga", "saga_step", "ledger.transfer"].contains(&table) {
                    for n in [3, 5] {
                        fault(app, "withdraw-do", "refused", 1).await;
                        fired +=
                            usize::from(crash((app, &ada), (table, timing, n), "failed").await);
                        super::assert_faults_happened(app).await;
                    }
                }
            }
        }
        assert!(fired >= 40, "only {fired} crashes happened");
        let expected =
            texts(&format!("{}.00", 10_000 - 10 * completed), &format!("{completed}.00000000"));
        assert_eq!(balances(&ada).await, expected);
        assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
    })
    .await;
}
