//! The table of states: what a wallet lets happen when it is open, frozen or closed.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, run};

/// What is tried, and the status when the wallet is open, frozen and closed.
const TABLE: [(&str, [u16; 3]); 12] = [
    ("deposit", [200, 200, 409]),
    ("transfer in", [201, 201, 409]),
    ("withdraw", [200, 409, 409]),
    ("transfer out", [201, 409, 409]),
    ("hold", [201, 409, 409]),
    // A wallet with a hold cannot be closed.
    ("capture", [200, 200, 0]),
    ("capture into", [200, 200, 409]),
    ("void", [200, 200, 0]),
    ("refund in", [201, 201, 409]),
    ("refund out", [201, 409, 409]),
    ("rename", [200, 200, 409]),
    // Not while money is in it; once closed it stays closed.
    ("close", [409, 409, 204]),
];

struct Scene<'a> {
    app: &'a TestApp,
    wallet: String,
    other: String,
    /// A hold on this wallet, one on the other, and transfers in both directions.
    hold: Option<String>,
    other_hold: String,
    incoming: String,
    outgoing: String,
}

async fn id_of(app: &TestApp, path: &str, body: Value) -> String {
    let answer = app.post(path, body).await;
    assert_eq!(answer.status, 201, "{path}: {}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn patch(app: &TestApp, wallet: &str, body: Value) -> Answer {
    let request = app.request(Method::PATCH, &format!("/wallet/{wallet}")).json(&body);
    app.send(request).await
}

async fn close(app: &TestApp, wallet: &str) -> Answer {
    app.send(app.request(Method::DELETE, &format!("/wallet/{wallet}"))).await
}

impl<'a> Scene<'a> {
    async fn set(app: &'a TestApp, state: usize) -> Self {
        let (wallet, other) =
            (app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "10").await);
        let transfer = |from: &str, to: &str| json!({ "from": from, "to": to, "amount": 2 });
        let incoming = id_of(app, "/wallet/transfer", transfer(&other, &wallet)).await;
        let outgoing = id_of(app, "/wallet/transfer", transfer(&wallet, &other)).await;
        let holding = |id: &str| json!({ "id": id, "amount": 2 });
        let other_hold = id_of(app, "/wallet/hold", holding(&other)).await;
        let mut hold = None;
        match state {
            0 | 1 => {
                hold = Some(id_of(app, "/wallet/hold", holding(&wallet)).await);
                if state == 1 {
                    assert_eq!(patch(app, &wallet, json!({ "freeze": true })).await.status, 200);
                }
            }
            _ => {
                let all = json!({ "id": wallet, "amount": 10 });
                assert_eq!(app.post("/wallet/withdraw", all).await.status, 200);
                assert_eq!(close(app, &wallet).await.status, 204);
            }
        }
        Self { app, wallet, other, hold, other_hold, incoming, outgoing }
    }

    async fn attempt(&self, what: &str) -> Option<Answer> {
        let Self { app, wallet, other, .. } = self;
        let money = json!({ "id": wallet, "amount": 1 });
        let moved = |from: &str, to: &str| json!({ "from": from, "to": to, "amount": 1 });
        let on_hold = |action: &str| Some(format!("/wallet/hold/{}/{action}", self.hold.as_ref()?));
        Some(match what {
            "deposit" => app.post("/wallet/deposit", money).await,
            "withdraw" => app.post("/wallet/withdraw", money).await,
            "hold" => app.post("/wallet/hold", money).await,
            "transfer in" => app.post("/wallet/transfer", moved(other, wallet)).await,
            "transfer out" => app.post("/wallet/transfer", moved(wallet, other)).await,
            "capture" => app.post(&on_hold("capture")?, json!({ "to": other })).await,
            "void" => app.post(&on_hold("void")?, json!({})).await,
            "capture into" => {
                let path = format!("/wallet/hold/{}/capture", self.other_hold);
                app.post(&path, json!({ "to": wallet })).await
            }
            "refund in" => app.post("/wallet/refund", json!({ "transfer": self.outgoing })).await,
            "refund out" => app.post("/wallet/refund", json!({ "transfer": self.incoming })).await,
            "rename" => patch(app, wallet, json!({ "label": "renamed" })).await,
            "close" => close(app, wallet).await,
            other => panic!("no such attempt: {other}"),
        })
    }
}

#[tokio::test]
async fn each_state_lets_happen_what_the_table_says() {
    run(async |app| {
        for (what, statuses) in TABLE {
            for (state, expected) in statuses.into_iter().enumerate() {
                let scene = Scene::set(app, state).await;

                let Some(answer) = scene.attempt(what).await else {
                    assert_eq!(expected, 0, "{what} in state {state}");
                    continue;
                };

                assert_eq!(answer.status, expected, "{what} in state {state}: {}", answer.text);
                if expected == 409 {
                    let slug = match (what, state) {
                        ("close", 0) => "wallet-not-empty",
                        (_, 1) => "wallet-frozen",
                        _ => "wallet-closed",
                    };
                    answer.problem(409, slug);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_wallet_is_renamed_frozen_and_unfrozen() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "10").await;

        let body = json!({ "label": "savings", "metadata": { "tier": "gold" }, "freeze": true });
        let changed = patch(app, &wallet, body).await;

        assert_eq!(changed.status, 200, "{}", changed.text);
        let now = changed.json();
        assert_eq!((&now["label"], &now["state"]), (&json!("savings"), &json!("frozen")));
        assert_eq!(now["metadata"], json!({ "tier": "gold" }));
        assert!(now["created_at"].is_string() && now["closed_at"].is_null());
        let again = patch(app, &wallet, json!({ "freeze": true, "label": null })).await;
        assert_eq!(again.status, 200, "it is as it should be: {}", again.text);
        assert_eq!(
            (&again.json()["label"], &again.json()["state"]),
            (&Value::Null, &json!("frozen"))
        );
        assert_eq!(again.json()["metadata"], json!({ "tier": "gold" }), "what is absent stays");
        let open = patch(app, &wallet, json!({ "freeze": false })).await;
        assert_eq!(open.json()["state"], "open");
        assert_eq!(patch(app, &wallet, json!({ "freeze": false })).await.status, 200);
        patch(app, &wallet, json!({ "label": "", "metadata": 1 })).await.problem(422, "invalid");
        patch(app, "999", json!({})).await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn a_closed_wallet_is_in_no_list_but_its_history_stays() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "0").await;

        assert_eq!(close(app, &wallet).await.status, 204);

        assert_eq!(app.get("/wallet").await.text, "[]");
        assert_eq!(app.get("/wallet?closed=true").await.json()[0]["id"], wallet);
        let now = app.get(&format!("/wallet/{wallet}")).await.json();
        assert_eq!(now["state"], "closed");
        assert!(now["closed_at"].is_string());
        let history = app.get(&format!("/wallet/{wallet}/history")).await.json();
        assert_eq!(history[0]["kind"], "close");
        assert_eq!(close(app, &wallet).await.status, 204, "again");
        close(app, "999").await.problem(404, "not-found");
    })
    .await;
}
