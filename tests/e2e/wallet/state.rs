//! The table of states: what a wallet lets happen when it is open, frozen or closed, whoever may ask.

use http::Method;
use serde_json::{Value, json};

use revwallet::auth::Scope;

use crate::harness::{Answer, Client, run, run_with};

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

/// Somebody who may use a wallet.
struct Party {
    /// Opens the wallet, which belongs to them if they are a user.
    opener: Client,
    /// Puts money into it.
    funder: Client,
    /// Tries what is tried.
    actor: Client,
    /// Whether the actor may bring money into being.
    funds: bool,
}

struct Scene<'a> {
    actor: &'a Client,
    wallet: String,
    other: String,
    /// A hold on this wallet, one on the other, and transfers in both directions.
    hold: Option<String>,
    other_hold: String,
    incoming: String,
    outgoing: String,
}

async fn id_of(client: &Client, path: &str, body: Value) -> String {
    let answer = client.post(path, body).await;
    assert!([200, 201].contains(&answer.status), "{path}: {}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn patch(client: &Client, wallet: &str, body: Value) -> Answer {
    let request = client.request(Method::PATCH, &format!("/wallet/{wallet}")).json(&body);
    client.send(request).await
}

async fn close(client: &Client, wallet: &str) -> Answer {
    client.send(client.request(Method::DELETE, &format!("/wallet/{wallet}"))).await
}

impl<'a> Scene<'a> {
    async fn set(party: &'a Party, state: usize) -> Self {
        let Party { opener, funder, actor, .. } = party;
        let opened = async || {
            let id =
                id_of(opener, "/wallet", json!({ "owner": "somebody", "currency": "EUR" })).await;
            id_of(funder, "/wallet/deposit", json!({ "id": id, "amount": 10 })).await
        };
        let (wallet, other) = (opened().await, opened().await);
        let transfer = |from: &str, to: &str| json!({ "from": from, "to": to, "amount": 2 });
        let incoming = id_of(actor, "/wallet/transfer", transfer(&other, &wallet)).await;
        let outgoing = id_of(actor, "/wallet/transfer", transfer(&wallet, &other)).await;
        let holding = |id: &str| json!({ "id": id, "amount": 2 });
        let other_hold = id_of(actor, "/wallet/hold", holding(&other)).await;
        let mut hold = None;
        match state {
            0 | 1 => {
                hold = Some(id_of(actor, "/wallet/hold", holding(&wallet)).await);
                if state == 1 {
                    assert_eq!(patch(actor, &wallet, json!({ "freeze": true })).await.status, 200);
                }
            }
            _ => {
                let all = json!({ "id": wallet, "amount": 10 });
                assert_eq!(actor.post("/wallet/withdraw", all).await.status, 200);
                assert_eq!(close(actor, &wallet).await.status, 204);
            }
        }
        Self { actor, wallet, other, hold, other_hold, incoming, outgoing }
    }

    async fn attempt(&self, what: &str) -> Option<Answer> {
        let Self { actor: app, wallet, other, .. } = self;
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

async fn held_against_the_table(party: &Party) {
    for (what, statuses) in TABLE {
        for (state, expected) in statuses.into_iter().enumerate() {
            let scene = Scene::set(party, state).await;
            let expected = if what == "deposit" && !party.funds { 403 } else { expected };

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
}

#[tokio::test]
async fn each_state_lets_happen_what_the_table_says_where_access_is_open() {
    run(async |app| {
        let anybody = || (**app).clone();
        held_against_the_table(&Party {
            opener: anybody(),
            funder: anybody(),
            actor: anybody(),
            funds: true,
        })
        .await;
        let owner = app.person("ada").await.client;
        held_against_the_table(&Party {
            opener: owner.clone(),
            funder: owner.clone(),
            actor: owner,
            funds: true,
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn each_state_lets_happen_what_the_table_says_where_access_is_closed() {
    run_with(&["--access=closed"], async |app| {
        let key = app.key(&[Scope::WalletWrite, Scope::WalletRead]).await;
        let owner = app.person("ada").await.client;
        let by_owner = Party {
            opener: owner.clone(),
            funder: key.clone(),
            actor: owner.clone(),
            funds: false,
        };
        held_against_the_table(&by_owner).await;
        let by_key = Party { opener: owner, funder: key.clone(), actor: key.clone(), funds: true };
        held_against_the_table(&by_key).await;
        let of_nobody = Party { opener: key.clone(), funder: key.clone(), actor: key, funds: true };
        held_against_the_table(&of_nobody).await;
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
