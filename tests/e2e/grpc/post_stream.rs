//! `PostStream`: many postings over one stream, each with a result of its own.

use revwallet::auth::{CREDENTIAL_CACHED_FOR, Scope};
use serde_json::{Value, json};

use super::bearer;
use crate::harness::grpc::{GrpcClient, GrpcStream, assert_failure};
use crate::harness::{Client, TestApp, run, run_with};

async fn open(client: &GrpcClient) -> GrpcStream<'_> {
    // A deadline instead of a test that waits for ever.
    client.open("PostStream", json!({}), json!({ "sends": true, "timeout": 60 })).await
}

fn deposit(key: &str, player: &str, amount: i64) -> Value {
    json!({ "idempotency_key": key, "deposit": { "user_id": player, "amount": amount } })
}

async fn balance(app: &TestApp, player: &str) -> i64 {
    let found = app.get(&format!("/api/wallet/balance/{player}")).await;
    assert_eq!(found.status, 200, "{}", found.text);
    found.json()["balance"].as_i64().unwrap()
}

/// Results of the next response.
async fn results(stream: &GrpcStream<'_>) -> Vec<Value> {
    let found = stream.next().await;
    found["message"]["results"].as_array().unwrap_or_else(|| panic!("{found}")).clone()
}

#[tokio::test]
async fn each_item_has_its_result_in_order_and_refusals_affect_no_other_item() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        let stream = open(&client).await;
        stream.send(json!({ "items": [deposit("a", "ada", 500), deposit("b", "bob", 30)] })).await;
        let opened = results(&stream).await;
        assert_eq!(opened[0]["posted"]["balance"], "500", "{opened:?}");
        assert_eq!(opened[1]["posted"]["balance"], "30");

        stream
            .send(json!({ "items": [
                { "transfer": { "from_user_id": "ada", "to_user_id": "bob", "amount": 100 } },
                { "withdraw": { "user_id": "bob", "amount": 1_000 } },
                { "deposit": { "user_id": "ada", "amount": 0 } },
                { "deposit": { "user_id": "ada", "amount": 1, "currency": "XXX" } },
                { "withdraw": { "user_id": "nobody", "amount": 1 } },
                { "idempotency_key": "two words", "deposit": { "user_id": "ada", "amount": 1 } },
                {},
                deposit("a", "ada", 500),
                deposit("a", "ada", 501),
            ] }))
            .await;
        let found = results(&stream).await;

        assert_eq!(found.len(), 9);
        assert_eq!(found[0]["posted"]["balance"], "400", "{found:?}");
        let failure = |place: usize| {
            let failure = &found[place]["failure"];
            (failure["code"].as_i64().unwrap(), failure["reason"].as_str().unwrap().to_owned())
        };
        assert_eq!(failure(1), (9, "insufficient-funds".to_owned()));
        assert_eq!(failure(2), (3, "invalid".to_owned()));
        assert_eq!(found[2]["failure"]["fields"][0]["field"], "amount");
        assert_eq!(failure(3), (3, "invalid".to_owned()));
        assert_eq!(failure(4), (5, "user-not-found".to_owned()));
        assert_eq!(found[5]["failure"]["fields"][0]["field"], "idempotency_key");
        assert_eq!(found[6]["failure"]["fields"][0]["field"], "operation");
        assert_eq!(found[7]["posted"]["replayed"], true);
        assert_eq!(found[7]["posted"]["transfer_id"], opened[0]["posted"]["transfer_id"]);
        assert_eq!(failure(8), (6, "idempotency-key-reused".to_owned()));
        let withdrawal = json!({ "withdraw": { "user_id": "ada", "amount": 5 } });
        stream.send(json!({ "items": [withdrawal] })).await;
        assert_eq!(results(&stream).await[0]["posted"]["balance"], "395");
        assert_eq!((balance(app, "ada").await, balance(app, "bob").await), (395, 130));

        stream.finish().await;
        assert_eq!(stream.next().await["code"], "ENDED");
        let metrics = app.internal.get("/metrics").await.text;
        for (outcome, count) in [("posted", 4), ("replayed", 1), ("refused", 7), ("failed", 0)] {
            let line = format!("wallet_stream_items_total{{outcome=\"{outcome}\"}} {count}");
            assert!(metrics.contains(&line), "{line}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_has_one_effect_over_a_stream_and_a_single_call() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        let message = json!({ "user_id": "ada", "amount": 7 });
        let metadata = json!({ "idempotency-key": "k" });
        let single = client.call_with("Deposit", message, metadata).await;
        let stream = open(&client).await;

        stream.send(json!({ "items": [deposit("k", "ada", 7), deposit("k", "ada", 7)] })).await;

        for result in results(&stream).await {
            assert_eq!(result["posted"]["replayed"], true, "{result}");
            assert_eq!(result["posted"]["transfer_id"], single["message"]["transfer_id"]);
        }
        assert_eq!(balance(app, "ada").await, 7);
    })
    .await;
}

#[tokio::test]
async fn a_client_may_send_everything_before_it_reads() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        let stream = open(&client).await;
        for request in 0..60 {
            let player = format!("p{request}");
            let items: Vec<Value> =
                (0..256).map(|item| deposit(&format!("{request}-{item}"), &player, 1)).collect();
            stream.send(json!({ "items": items })).await;
        }
        stream.finish().await;

        for request in 0..60 {
            let found = results(&stream).await;
            assert_eq!(found.len(), 256);
            let mut balances: Vec<i64> = found
                .iter()
                .map(|result| result["posted"]["balance"].as_str().unwrap().parse().unwrap())
                .collect();
            balances.sort_unstable();
            assert!(balances.into_iter().eq(1..=256), "request {request}");
        }
        assert_eq!(stream.next().await["code"], "ENDED");
        assert_eq!(balance(app, "p59").await, 256);
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_broke_is_repeated_without_a_second_effect() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        let request = |number: i64| {
            let items: Vec<Value> =
                (0..100).map(|item| deposit(&format!("{number}-{item}"), "ada", 1)).collect();
            json!({ "items": items })
        };
        let broken = open(&client).await;
        for number in 0..20 {
            broken.send(request(number)).await;
        }
        assert_eq!(results(&broken).await.len(), 100);
        broken.cancel().await;

        let repeated = open(&client).await;
        for number in 0..20 {
            repeated.send(request(number)).await;
        }
        let mut replays = 0;
        for _ in 0..20 {
            let found = results(&repeated).await;
            assert!(found.iter().all(|result| result["posted"].is_object()), "{found:?}");
            replays += found.iter().filter(|one| one["posted"]["replayed"] == true).count();
        }

        assert!(replays >= 100, "{replays}");
        assert_eq!(balance(app, "ada").await, 2_000);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_too_large_ends_the_stream() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        let many = open(&client).await;
        many.send(json!({ "items": [deposit("first", "ada", 1)] })).await;
        many.send(json!({ "items": vec![deposit("", "ada", 1); 257] })).await;

        assert_eq!(results(&many).await.len(), 1);
        let details = assert_failure(&many.next().await, "INVALID_ARGUMENT", "invalid");
        assert_eq!(details["BadRequest"]["fieldViolations"][0]["field"], "items");

        let large = open(&client).await;
        let key = "k".repeat(70_000);
        large.send(json!({ "items": [deposit(&key, "ada", 1)] })).await;
        assert_failure(&large.next().await, "RESOURCE_EXHAUSTED", "body-too-large");
        assert_eq!(balance(app, "ada").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_soon_after_its_credential() {
    run_with(&["--access=closed"], async |app| {
        let client = GrpcClient::connect(app.address);
        assert_failure(&open(&client).await.next().await, "UNAUTHENTICATED", "unauthenticated");
        let user = app.user("ada").await;
        let [admin, writer, reader] = [Scope::Admin, Scope::WalletWrite, Scope::WalletRead];
        let (admin, writer) = (app.api_key(&[admin]).await, app.api_key(&[writer]).await);
        let reader = app.api_key(&[reader]).await;
        let open_as = async |caller: &Client| {
            let metadata = bearer(caller.credential());
            let rest = json!({ "sends": true, "timeout": 60, "metadata": metadata });
            client.open("PostStream", json!({}), rest).await
        };
        let request = json!({ "items": [deposit("", &user.id, 1)] });
        let reads = open_as(&reader).await;
        reads.send(request.clone()).await;
        let refused = results(&reads).await;
        assert_eq!(refused[0]["failure"]["code"], 7, "{refused:?}");
        assert_eq!(refused[0]["failure"]["reason"], "forbidden");

        let stream = open_as(&writer).await;
        stream.send(request.clone()).await;
        assert_eq!(results(&stream).await[0]["posted"]["balance"], "1");
        let id = writer.credential().split('_').nth(1).unwrap();
        let path = format!("/api/keys/{id}");
        let deleted = admin.send(admin.request(http::Method::DELETE, &path)).await;
        assert_eq!(deleted.status, 204, "{}", deleted.text);
        tokio::time::sleep(CREDENTIAL_CACHED_FOR).await;
        stream.send(request).await;

        assert_failure(&stream.next().await, "UNAUTHENTICATED", "unauthenticated");
    })
    .await;
}
