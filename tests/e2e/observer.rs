//! The observer role of Grafana: it reads transfers with their trace ids, and nothing else.

use revwallet::ledger::transfer::TransferKind;
use serde_json::json;
use sqlx::{Executor, PgConnection, Row};

use crate::harness::{TestApp, run};

async fn observer(app: &TestApp) -> PgConnection {
    let mut connection = app.database.connect().await;
    connection.execute("set role revwallet_observer").await.unwrap();
    connection
}

#[tokio::test]
async fn a_transfer_leads_to_its_trace_and_back() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "0").await);
        let transfer = json!({ "from": a, "to": b, "amount": 5, "fee": "0.10", "memo": "private" });
        let moved = app.post("/wallet/transfer", transfer).await.json();
        app.post("/wallet/hold", json!({ "id": a, "amount": 2 })).await;
        let mut db = observer(app).await;

        let rows = sqlx::query("select * from observer.of_wallet($1)").bind(&a).fetch_all(&mut db).await.unwrap();
        let kinds: Vec<String> = rows.iter().map(|row| row.get("kind")).collect();
        assert_eq!(kinds, ["hold", "fee", "transfer", "deposit", "open"]);
        let holder = rows[0].get::<Option<i64>, _>("to_wallet");
        assert_eq!(holder.map(|wallet| wallet.to_string()), Some(a.clone()), "held money still belongs to the wallet");
        assert!(rows.iter().all(|row| !row.columns_text().contains("private")));

        let legs = sqlx::query("select * from observer.of_transfer($1)").bind(moved["id"].as_str()).fetch_all(&mut db).await.unwrap();
        assert_eq!(legs.len(), 2, "the transfer and its fee");
        assert_eq!(legs[0].get::<String, _>("trace_id"), moved["trace_id"].as_str().unwrap());
        let of_trace = "select * from observer.of_trace($1, now() - interval '1 minute', now() + interval '1 minute')";
        let found = sqlx::query(of_trace).bind(moved["trace_id"].as_str()).fetch_all(&mut db).await.unwrap();
        assert_eq!(found.len(), 2);
        for nonsense in ["", "x", "1; drop table wallet", "99999999999999999999"] {
            let rows = sqlx::query("select * from observer.of_wallet($1)").bind(nonsense).fetch_all(&mut db).await.unwrap();
            assert!(rows.is_empty(), "{nonsense}");
        }
    })
    .await;
}

trait Text {
    fn columns_text(&self) -> String;
}

impl Text for sqlx::postgres::PgRow {
    fn columns_text(&self) -> String {
        use sqlx::Column;
        let names = self.columns().iter().map(|column| column.name().to_owned());
        names
            .filter_map(|name| self.try_get::<Option<String>, _>(name.as_str()).ok().flatten())
            .collect()
    }
}

#[tokio::test]
async fn the_observer_can_do_nothing_else() {
    run(async |app| {
        app.open_wallet("EUR", "10").await;
        let mut db = observer(app).await;
        for statement in [
            "select * from wallet",
            "select * from ledger.transfer",
            "select * from observer.transfer",
            "select password_hash from app_user",
            "select secret from jwt_key",
            "select secret from webhook",
            "insert into trail (actor, action, outcome) values ('x', 'x', 'done')",
            "create table mine (x int)",
            "select ledger.post(1, 0, gen_random_uuid(), null)",
        ] {
            let refused = db.execute(statement).await.unwrap_err().to_string();
            assert!(
                refused.contains("permission denied") || refused.contains("does not exist"),
                "{statement}: {refused}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn every_transfer_kind_has_its_name_in_the_observer_schema() {
    run(async |app| {
        let mut db = app.database.connect().await;
        for kind in TransferKind::ALL {
            let name: Option<String> = sqlx::query_scalar("select observer.kind($1)")
                .bind(kind.code())
                .fetch_one(&mut db)
                .await
                .unwrap();
            assert_eq!(name.as_deref(), Some(kind.name()));
        }
    })
    .await;
}
