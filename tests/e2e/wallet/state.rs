//! The state table: operations that an open, frozen or closed wallet permits, for every kind of caller.

use http::Method;
use serde_json::{Value, json};

use revwallet::auth::Scope;

use crate::harness::{Client, Response, run, run_with};

/// Operations, each with the expected status for an open, a frozen and a closed wallet; 0 means not possible.
const TABLE: [(&str, [u16; 3]); 12] = [
    ("deposit", [200, 200, 409]),
    ("transfer in", [201, 201, 409]),
    ("withdraw", [200, 409, 409]),
    ("transfer out", [201, 409, 409]),
    ("hold", [201, 409, 409]),
    // A wallet with a hold cannot be closed, so there is no third case.
    ("capture", [200, 200, 0]),
    ("capture into", [200, 200, 409]),
    ("void", [200, 200, 0]),
    ("refund in", [201, 201, 409]),
    ("refund out", [201, 409, 409]),
    ("rename", [200, 200, 409]),
    // A wallet with money cannot be closed; closing it again succeeds.
    ("close", [409, 409, 204]),
];

/// The clients that take part in a case.
struct Clients {
    /// Opens the wallet, and owns it if the client is a user.
    opener: Client,
    /// Deposits money into the wallet.
    funder: Client,
    /// Requests the operation.
    actor: Client,
    /// Whether the actor may deposit.
    actor_may_fund: bool,
}

/// Wallets in the state under test, with the resources that operations need.
struct Fixture<'a> {
    actor: &'a Client,
    wallet: String,
    other: String,
    /// A hold on this wallet, unless it is closed.
    hold: Option<String>,
    /// A hold on the other wallet.
    other_hold: String,
    /// A transfer from the other wallet.
    incoming: String,
    /// A transfer to the other wallet.
    outgoing: String,
}

async fn id_of(client: &Client, path: &str, body: Value) -> String {
    let response = client.post(path, body).await;
    assert!([200, 201].contains(&response.status), "{path}: {}", response.text);
    response.json()["id"].as_str().unwrap().to_owned()
}

async fn patch(client: &Client, wallet: &str, body: Value) -> Response {
    let request = client.request(Method::PATCH, &format!("/wallet/{wallet}")).json(&body);
    client.send(request).await
}

async fn close(client: &Client, wallet: &str) -> Response {
    client.send(client.request(Method::DELETE, &format!("/wallet/{wallet}"))).await
}

impl<'a> Fixture<'a> {
    async fn create(clients: &'a Clients, state: usize) -> Self {
        let Clients { opener, funder, actor, .. } = clients;
        let open = async || {
            let id = id_of(opener, "/wallet", json!({ "owner": "ada", "currency": "EUR" })).await;
            id_of(funder, "/wallet/deposit", json!({ "id": id, "amount": 10 })).await
        };
        let (wallet, other) = (open().await, open().await);
        let transfer = |from: &str, to: &str| json!({ "from": from, "to": to, "amount": 2 });
        let incoming = id_of(actor, "/wallet/transfer", transfer(&other, &wallet)).await;
        let outgoing = id_of(actor, "/wallet/transfer", transfer(&wallet, &other)).await;
        let hold_body = |id: &str| json!({ "id": id, "amount": 2 });
        let other_hold = id_of(actor, "/wallet/hold", hold_body(&other)).await;
        let mut hold = None;
        match state {
            0 | 1 => {
                hold = Some(id_of(actor, "/wallet/hold", hold_body(&wallet)).await);
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

    /// Requests an operation; `None` if it is not possible in this state.
    async fn attempt(&self, operation: &str) -> Option<Response> {
        let Self { actor, wallet, other, .. } = self;
        let amount = json!({ "id": wallet, "amount": 1 });
        let transfer_body = |from: &str, to: &str| json!({ "from": from, "to": to, "amount": 1 });
        let on_hold = |action: &str| Some(format!("/wallet/hold/{}/{action}", self.hold.as_ref()?));
        Some(match operation {
            "deposit" => actor.post("/wallet/deposit", amount).await,
            "withdraw" => actor.post("/wallet/withdraw", amount).await,
            "hold" => actor.post("/wallet/hold", amount).await,
            "transfer in" => actor.post("/wallet/transfer", transfer_body(other, wallet)).await,
            "transfer out" => actor.post("/wallet/transfer", transfer_body(wallet, other)).await,
            "capture" => actor.post(&on_hold("capture")?, json!({ "to": other })).await,
            "void" => actor.post(&on_hold("void")?, json!({})).await,
            "capture into" => {
                let path = format!("/wallet/hold/{}/capture", self.other_hold);
                actor.post(&path, json!({ "to": wallet })).await
            }
            "refund in" => actor.post("/wallet/refund", json!({ "transfer": self.outgoing })).await,
            "refund out" => {
                actor.post("/wallet/refund", json!({ "transfer": self.incoming })).await
            }
            "rename" => patch(actor, wallet, json!({ "label": "renamed" })).await,
            "close" => close(actor, wallet).await,
            unknown => panic!("unknown operation: {unknown}"),
        })
    }
}

/// Checks every operation in every state against the table.
async fn assert_table(clients: &Clients) {
    for (operation, statuses) in TABLE {
        for (state, expected) in statuses.into_iter().enumerate() {
            let fixture = Fixture::create(clients, state).await;
            let is_refused = operation == "deposit" && !clients.actor_may_fund;
            let expected = if is_refused { 403 } else { expected };

            let Some(response) = fixture.attempt(operation).await else {
                assert_eq!(expected, 0, "{operation} in state {state}");
                continue;
            };

            assert_eq!(
                response.status, expected,
                "{operation} in state {state}: {}",
                response.text
            );
            if expected == 409 {
                let slug = match (operation, state) {
                    ("close", 0) => "wallet-not-empty",
                    (_, 1) => "wallet-frozen",
                    _ => "wallet-closed",
                };
                response.problem(409, slug);
            }
        }
    }
}

#[tokio::test]
async fn each_state_permits_what_the_table_says_with_open_access() {
    run(async |app| {
        let anonymous = || (**app).clone();
        assert_table(&Clients {
            opener: anonymous(),
            funder: anonymous(),
            actor: anonymous(),
            actor_may_fund: true,
        })
        .await;
        let owner = app.user("ada").await.client;
        assert_table(&Clients {
            opener: owner.clone(),
            funder: owner.clone(),
            actor: owner,
            actor_may_fund: true,
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn each_state_permits_what_the_table_says_with_closed_access() {
    run_with(&["--access=closed"], async |app| {
        let key = app.api_key(&[Scope::WalletWrite, Scope::WalletRead]).await;
        let owner = app.user("ada").await.client;
        let by_owner = Clients {
            opener: owner.clone(),
            funder: key.clone(),
            actor: owner.clone(),
            actor_may_fund: false,
        };
        assert_table(&by_owner).await;
        let by_key = Clients {
            opener: owner,
            funder: key.clone(),
            actor: key.clone(),
            actor_may_fund: true,
        };
        assert_table(&by_key).await;
        let without_owner =
            Clients { opener: key.clone(), funder: key.clone(), actor: key, actor_may_fund: true };
        assert_table(&without_owner).await;
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
        assert_eq!(again.status, 200, "a repeated freeze succeeds: {}", again.text);
        assert_eq!(
            (&again.json()["label"], &again.json()["state"]),
            (&Value::Null, &json!("frozen"))
        );
        assert_eq!(
            again.json()["metadata"],
            json!({ "tier": "gold" }),
            "an absent field stays unchanged"
        );
        let open = patch(app, &wallet, json!({ "freeze": false })).await;
        assert_eq!(open.json()["state"], "open");
        assert_eq!(patch(app, &wallet, json!({ "freeze": false })).await.status, 200);
        patch(app, &wallet, json!({ "label": "", "metadata": 1 })).await.problem(422, "invalid");
        patch(app, "999", json!({})).await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn a_closed_wallet_is_not_listed_but_keeps_its_history() {
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
        assert_eq!(close(app, &wallet).await.status, 204, "closing again succeeds");
        close(app, "999").await.problem(404, "not-found");
    })
    .await;
}
