//! Workload that exercises every feature, long enough for every rate to have data.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::stack::Stack;
use crate::harness::grpc::GrpcClient;
use crate::harness::receiver::Receiver;
use crate::harness::{Client, eventually_within};

/// Duration of the workload: rates need a few scrapes.
const DURATION: Duration = Duration::from_secs(12);

async fn create(client: &Client, path: &str, body: Value) -> String {
    let answer = client.post(path, body).await;
    assert!([200, 201].contains(&answer.status), "{path}: {}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

pub async fn run(stack: &Stack) {
    let receiver = Receiver::start().await;
    let hook = json!({ "url": receiver.url(), "events": ["*"] });
    create(&stack.first.public, "/wallet/webhook", hook).await;
    let game = stack.first.public.with_credential(&stack.first_key());
    let _listener = listen(&stack.first.public).await;
    let rpc = GrpcClient::connect(stack.first.public.address);
    play_over_grpc(&rpc).await;
    let watched = json!({ "user_id": "guest" });
    let _watch = rpc.open("WatchBalance", watched, json!({})).await;
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < DURATION {
        round += 1;
        move_money(&stack.first.public).await;
        move_money(&stack.second_public).await;
        move_money(&stack.third_public).await;
        use_accounts(&stack.first.public, round).await;
        play(&game, round).await;
        play_over_grpc(&rpc).await;
    }
    eventually_within(Duration::from_secs(20), "the webhook receives events", async || {
        receiver.deliveries().len() > 10
    })
    .await;
    // Queue depths and held amounts are sampled periodically.
    let sampled = async || {
        let held = stack.query("wallet_held_minor_units").await;
        let lag = stack.query(r#"wallet_book_reader_lag_transfers{reader="webhooks"}"#).await;
        let ready = stack.query("wallet_jobs_ready").await;
        let watchdog = stack.query("wallet_watchdog_last_timestamp_seconds > 0").await;
        !watchdog.is_empty() && !held.is_empty() && !lag.is_empty() && !ready.is_empty()
    };
    eventually_within(Duration::from_secs(75), "every gauge is sampled", sampled).await;
    // Once more, so that every rate over the last 15 s has data.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        round += 1;
        move_money(&stack.first.public).await;
        move_money(&stack.third_public).await;
        use_accounts(&stack.first.public, round).await;
        play(&game, round).await;
        play_over_grpc(&rpc).await;
    }
}

async fn play_over_grpc(rpc: &GrpcClient) {
    rpc.call("Deposit", json!({ "user_id": "guest", "amount": 100 })).await;
    rpc.call("GetBalance", json!({ "user_id": "guest" })).await;
    rpc.call("GetBalance", json!({ "user_id": "nobody" })).await;
}

/// Uses leaderboards and the cents API.
async fn play(game: &Client, round: u32) {
    for board in ["workload".to_owned(), format!("round{round}")] {
        let path = format!("/api/leaderboards/{board}");
        let put = game.request(Method::PUT, &path).json(&json!({ "operator": "incr" }));
        assert!([200, 201].contains(&game.send(put).await.status));
        for user in ["ada", "bob"] {
            let score = json!({ "user": user, "score": round });
            game.post_with_key(&format!("{path}/scores"), &format!("{user}{round}"), score).await;
        }
        game.get(&path).await;
        game.get(&format!("{path}/users/ada?around=0")).await;
        game.get(&format!("{path}/users/ada?around=5")).await;
    }
    let path = format!("/api/leaderboards/round{round}");
    game.send(game.request(Method::DELETE, &path)).await;
    game.post("/api/wallet/deposit", json!({ "userId": "guest", "amount": 100 })).await;
    game.get("/api/wallet/balance/guest").await;
}

/// Follows a wallet over a WebSocket, and deposits into it, until the task is dropped.
async fn listen(client: &Client) -> tokio_util::task::AbortOnDropHandle<()> {
    let body = json!({ "owner": "listener", "currency": "EUR" });
    let wallet = create(client, "/wallet", body).await;
    let mut socket = client.socket().await;
    socket.subscribe(&format!("wallet:{wallet}")).await;
    let client = client.clone();
    tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            client.post("/wallet/deposit", json!({ "id": wallet, "amount": 1 })).await;
            socket.json().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }))
}

async fn move_money(client: &Client) {
    let open =
        |owner: &str| json!({ "owner": owner, "currency": "EUR", "initial_balance": "100.00" });
    let (a, b) =
        (create(client, "/wallet", open("a")).await, create(client, "/wallet", open("b")).await);
    client
        .post_with_key("/wallet/deposit", &format!("d{a}"), json!({ "id": a, "amount": 5 }))
        .await;
    client
        .post_with_key("/wallet/deposit", &format!("d{a}"), json!({ "id": a, "amount": 5 }))
        .await;
    client
        .post_with_key("/wallet/deposit", &format!("d{a}"), json!({ "id": a, "amount": 6 }))
        .await;
    client.post("/wallet/withdraw", json!({ "id": a, "amount": 1 })).await;
    client.post("/wallet/withdraw", json!({ "id": a, "amount": 1_000_000 })).await;
    let transfer = create(
        client,
        "/wallet/transfer",
        json!({ "from": a, "to": b, "amount": 5, "fee": "0.10" }),
    )
    .await;
    client.post("/wallet/refund", json!({ "transfer": transfer })).await;
    client
        .post(
            "/wallet/batch",
            json!({ "atomic": true, "transfers": [{ "from": a, "to": b, "amount": 1 }] }),
        )
        .await;
    let hold = create(client, "/wallet/hold", json!({ "id": a, "amount": 3 })).await;
    client.post(&format!("/wallet/hold/{hold}/capture"), json!({ "amount": 1 })).await;
    let hold = create(client, "/wallet/hold", json!({ "id": a, "amount": 3 })).await;
    client.post(&format!("/wallet/hold/{hold}/void"), json!({})).await;
    create(client, "/wallet/hold", json!({ "id": b, "amount": 3, "expires_in": 1 })).await;
    client.post(&format!("/wallet/{b}/alert"), json!({ "below": 50 })).await;
    client
        .send(
            client.request(Method::PATCH, &format!("/wallet/{b}")).json(&json!({ "freeze": true })),
        )
        .await;
    for path in [
        "/wallet".to_owned(),
        format!("/wallet/{a}"),
        format!("/wallet/balance/{a}"),
        format!("/wallet/{a}/history"),
        format!("/wallet/{a}/statement"),
        format!("/wallet/{a}/holds"),
        "/nowhere".to_owned(),
    ] {
        client.get(&path).await;
    }
}

/// Buys and sells crypto as a user.
async fn trade(user: &Client, id: &str) {
    user.post("/exchange/quote", json!({ "side": "buy", "fiat_amount": 2 })).await;
    user.post(&format!("/exchange/buy/{id}"), json!({ "fiat_amount": 2 })).await;
    user.post(&format!("/exchange/sell/{id}"), json!({ "crypto_amount": 0.01 })).await;
}

/// Adds games, and buys and refunds them as a user.
async fn shop(client: &Client, user: &Client, id: &str) {
    user.post("/api/wallet/deposit", json!({ "userId": id, "amount": 1_000 })).await;
    trade(user, id).await;
    for price in ["2.50", "0"] {
        let body = json!({ "title": "x", "genre": "x", "price": price });
        let game = client.post("/api/games", body).await.json()["gameId"].clone();
        client.get("/api/games").await;
        client.get("/api/games").await;
        client.get(&format!("/api/games/{game}")).await;
        let path = format!("/api/games/{game}");
        for operation in ["purchase", "purchase", "refund"] {
            user.post(&format!("{path}/{operation}"), json!({})).await;
        }
        user.get(&format!("/api/users/{id}/library")).await;
        client.send(client.request(Method::DELETE, &path)).await;
    }
}

async fn use_accounts(client: &Client, round: u32) {
    let name = format!("person{round}");
    let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": "test-secret in public" });
    let registered = client.post("/api/users/register", body).await;
    client
        .post("/api/users/login", json!({ "username": name, "password": "test-secret wrongly" }))
        .await;
    let answer = client
        .post("/api/users/login", json!({ "username": name, "password": "test-secret in public" }))
        .await;
    let me = client.with_credential(answer.json()["token"].as_str().unwrap());
    me.get("/wallet").await;
    me.get("/api/audit").await;
    let id = registered.json()["id"].as_str().unwrap().to_owned();
    shop(client, &me, &id).await;
    client.with_credential("nonsense").get("/wallet").await;
    client.with_credential("rwk_1_nonsense").get("/wallet").await;
    me.post("/api/users/logout", json!({})).await;
}
