//! gRPC with a stock client of another language, through reflection.

mod post_stream;
mod watch;

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, Request};
use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::grpc::{GrpcClient, assert_failure};
use crate::harness::{eventually, run, run_with};

fn bearer(credential: &str) -> Value {
    json!({ "authorization": format!("Bearer {credential}") })
}

#[tokio::test]
async fn reflection_describes_every_service_in_both_versions() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        for version in ["v1", "v1alpha"] {
            let found = client.request(json!({ "reflection": version })).await;
            let expected = [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "revwallet.v1.WalletService",
            ];
            assert_eq!(found["services"], json!(expected), "{version}: {found}");
        }
    })
    .await;
}

#[tokio::test]
async fn players_move_money_over_grpc_and_see_it_over_http() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        let deposit = json!({ "user_id": "ada", "amount": 12_300 });
        let key = json!({ "idempotency-key": "k", "x-request-id": "from-python" });
        let deposited = client.call_with("Deposit", deposit.clone(), key.clone()).await;
        assert_eq!(deposited["message"]["balance"], "12300", "{deposited}");
        assert_eq!(deposited["message"]["replayed"], false);
        assert_eq!(deposited["headers"]["x-request-id"], "from-python");
        let again = client.call_with("Deposit", deposit, key.clone()).await;
        assert_eq!(again["message"]["replayed"], true, "{again}");
        assert_eq!(again["message"]["transfer_id"], deposited["message"]["transfer_id"]);
        let other = json!({ "user_id": "ada", "amount": 1 });
        let reused = client.call_with("Deposit", other, key).await;
        assert_failure(&reused, "ALREADY_EXISTS", "idempotency-key-reused");

        let withdraw = json!({ "user_id": "ada", "amount": 300 });
        let withdrawn = client.call("Withdraw", withdraw).await;
        assert_eq!(withdrawn["message"]["balance"], "12000", "{withdrawn}");
        let read = client.call("GetBalance", json!({ "user_id": "ada" })).await;
        assert_eq!(read["message"]["balance"], "12000", "{read}");
        assert_eq!(read["message"]["currency"], "EUR");
        assert!(read["message"]["position"].as_str().unwrap().starts_with("p1."), "{read}");
        let http = app.get("/api/wallet/balance/ada").await.json();
        assert_eq!(http["balance"], 12_000);
    })
    .await;
}

#[tokio::test]
async fn a_transfer_needs_two_players_who_exist() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        client.call("Deposit", json!({ "user_id": "ada", "amount": 1_000 })).await;
        let transfer = |to: &str, amount: i64| {
            json!({ "from_user_id": "ada", "to_user_id": to, "amount": amount })
        };
        assert_failure(&client.call("Transfer", transfer("bob", 1)).await, "NOT_FOUND", "user-not-found");
        let own = client.call("Transfer", transfer("ada", 1)).await;
        assert_failure(&own, "INVALID_ARGUMENT", "invalid");
        let user = app.user("carol").await;

        let moved = client.call("Transfer", transfer(&user.id, 400)).await;

        assert_eq!(moved["message"]["balance"], "600", "{moved}");
        let received = user.get(&format!("/api/wallet/balance/{}", user.id)).await.json();
        assert_eq!(received["balance"], 400);
        let back = json!({ "from_user_id": user.id, "to_user_id": "ada", "amount": 1 });
        assert_failure(&client.call("Transfer", back.clone()).await, "UNAUTHENTICATED", "unauthenticated");
        let back = client.call_with("Transfer", back, bearer(user.credential())).await;
        assert_eq!(back["message"]["balance"], "399", "{back}");
        let short = client.call("Transfer", transfer(&user.id, 602)).await;
        let rich = assert_failure(&short, "FAILED_PRECONDITION", "insufficient-funds");
        assert_eq!(rich["ErrorInfo"]["metadata"]["available"], "601");
        assert_eq!(rich["ErrorInfo"]["metadata"]["required"], "602");
    })
    .await;
}

#[tokio::test]
async fn each_failure_has_the_status_of_its_problem() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        let user = app.user("ada").await;
        let get = |id: &str| json!({ "user_id": id });
        assert_failure(&client.call("GetBalance", get("bob")).await, "NOT_FOUND", "user-not-found");
        let own = client.call("GetBalance", get(&user.id)).await;
        assert_failure(&own, "UNAUTHENTICATED", "unauthenticated");
        let bad = client.call_with("GetBalance", get(&user.id), bearer("nonsense")).await;
        assert_failure(&bad, "UNAUTHENTICATED", "unauthenticated");
        let games = app.api_key(&[Scope::GamesWrite]).await;
        let other = client.call_with("GetBalance", get(&user.id), bearer(games.credential())).await;
        assert_failure(&other, "PERMISSION_DENIED", "forbidden");
        let broken = json!({ "user_id": "a b", "amount": -1, "currency": "EURO" });
        let broken =
            assert_failure(&client.call("Deposit", broken).await, "INVALID_ARGUMENT", "invalid");
        let fields = broken["BadRequest"]["fieldViolations"].as_array().unwrap();
        let names: Vec<_> = fields.iter().map(|field| field["field"].as_str().unwrap()).collect();
        assert_eq!(names, ["user_id", "amount", "currency"], "{broken}");
        let key = json!({ "idempotency-key": "a b" });
        let key = client.call_with("Deposit", json!({ "user_id": "x", "amount": 1 }), key).await;
        assert_failure(&key, "INVALID_ARGUMENT", "invalid");
        for raw in ["/revwallet.v1.WalletService/Nothing", "/nothing.v1.Nothing/Nothing"] {
            assert_failure(
                &client.request(json!({ "raw": raw })).await,
                "UNIMPLEMENTED",
                "not-found",
            );
        }
        let path = "/revwallet.v1.WalletService/GetBalance";
        let garbage = client.request(json!({ "raw": path, "bytes": "ffff" })).await;
        assert_failure(&garbage, "INVALID_ARGUMENT", "invalid");
        let large = "0a".repeat(70_000);
        let large = client.request(json!({ "raw": path, "bytes": large })).await;
        assert_failure(&large, "RESOURCE_EXHAUSTED", "body-too-large");
        let packed = client.request(json!({ "raw": path, "bytes": "0a0178", "gzip": true })).await;
        assert_failure(&packed, "UNIMPLEMENTED", "unsupported-media-type");
        assert_eq!(packed["details"], "send the body without compression");
    })
    .await;
}

#[tokio::test]
async fn trailers_of_a_request_do_not_replace_its_headers() {
    run(async |app| {
        let user = app.user("ada").await;
        let mut message = BytesMut::new();
        // Uncompressed, the length, and the field 1 with its length.
        message.put_u8(0);
        message.put_u32(u32::try_from(user.id.len()).unwrap() + 2);
        message.put_slice(&[0x0a, u8::try_from(user.id.len()).unwrap()]);
        message.put_slice(user.id.as_bytes());
        let authorization = format!("Bearer {}", user.credential()).parse().unwrap();
        let trailers = HeaderMap::from_iter([(http::header::AUTHORIZATION, authorization)]);
        let status = async |headers: HeaderMap, trailers: HeaderMap| {
            let stream = tokio::net::TcpStream::connect(app.address).await.unwrap();
            let (client, connection) = h2::client::handshake(stream).await.unwrap();
            let driver = tokio::spawn(connection);
            let path = "revwallet.v1.WalletService/GetBalance";
            let mut request =
                Request::post(format!("http://{}/{path}", app.address)).body(()).unwrap();
            *request.headers_mut() = headers;
            request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            let mut client = client.ready().await.unwrap();
            let (response, mut body) = client.send_request(request, false).unwrap();
            body.send_data(message.clone().freeze(), false).unwrap();
            body.send_trailers(trailers).unwrap();
            let mut response = response.await.unwrap();
            let head = response.headers().get("grpc-status").cloned();
            while response.body_mut().data().await.is_some() {}
            let tail = response.body_mut().trailers().await.unwrap().unwrap_or_default();
            driver.abort();
            head.or_else(|| tail.get("grpc-status").cloned()).unwrap()
        };

        assert_eq!(status(trailers.clone(), HeaderMap::new()).await, "0");
        assert_eq!(status(HeaderMap::new(), trailers).await, "16");
    })
    .await;
}

#[tokio::test]
async fn only_requests_of_the_content_type_are_calls() {
    run(async |app| {
        let path = "/revwallet.v1.WalletService/Deposit";
        for kind in ["text/plain", "application/json", "application/grpc+json"] {
            let request = app.request(http::Method::POST, path).header("content-type", kind);
            app.send(request.body("\0\0\0\0\0")).await.problem(415, "unsupported-media-type");
        }
        let untyped = app.request(http::Method::POST, path).body("\0\0\0\0\0");
        app.send(untyped).await.problem(415, "unsupported-media-type");
        // A suffix of another format makes a request neither a call nor JSON that escapes the records of HTTP.
        let batch = app.request(http::Method::POST, "/wallet/batch");
        let batch = batch.header("content-type", "application/grpc+json").body("{}");
        assert_eq!(app.send(batch).await.status, 422);
    })
    .await;
}

#[tokio::test]
async fn the_health_of_an_unknown_service_is_not_found() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        // The field 1 of the request: "x".
        let check = json!({ "raw": "/grpc.health.v1.Health/Check", "bytes": "0a0178" });
        assert_failure(&client.request(check).await, "NOT_FOUND", "not-found");
        let check = json!({ "raw": "/grpc.health.v1.Health/Check" });
        assert_eq!(client.request(check).await["code"], "OK");
    })
    .await;
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_its_posting_counts_once() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        client.call("Deposit", json!({ "user_id": "ada", "amount": 100 })).await;
        // The writer waits for this lock, so that no posting ends in time.
        let mut db = app.database.connect().await;
        let mut tx = sqlx::Connection::begin(&mut db).await.unwrap();
        sqlx::query("lock table ledger.seal in access exclusive mode")
            .execute(&mut *tx)
            .await
            .unwrap();
        let key = json!({ "idempotency-key": "k" });
        let message = json!({ "user_id": "ada", "amount": 1 });
        let request =
            json!({ "method": "Deposit", "message": message, "metadata": key, "timeout": 0.3 });

        let late = client.request(request.clone()).await;

        assert_eq!(late["code"], "DEADLINE_EXCEEDED", "{late}");
        tx.rollback().await.unwrap();
        let again = client.call_with("Deposit", message, key).await;
        assert_eq!(again["message"]["balance"], "101", "{again}");
        eventually("the call is recorded", async || {
            let metrics = app.internal.get("/metrics").await.text;
            metrics.contains("rpc_response_status_code=\"DEADLINE_EXCEEDED\"")
                || metrics.contains("rpc_response_status_code=\"CANCELLED\"")
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_call_is_measured_and_logged_once() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        let metadata = json!({ "x-request-id": "ok-call" });
        client.call_with("Deposit", json!({ "user_id": "ada", "amount": 100 }), metadata).await;
        let metadata = json!({ "x-request-id": "refused-call" });
        client.call_with("GetBalance", json!({ "user_id": "bob" }), metadata).await;

        eventually("both calls are logged", async || {
            ["ok-call", "refused-call"].into_iter().all(|id| app.logs.find("request_id", id).is_some())
        })
        .await;
        let refused = app.logs.find("request_id", "refused-call").unwrap();
        assert_eq!(refused["event"], "rpc.request", "{refused}");
        assert_eq!(refused["rpc.method"], "revwallet.v1.WalletService/GetBalance");
        assert_eq!(refused["rpc.response.status_code"], "NOT_FOUND");
        assert_eq!(refused["error.type"], "user-not-found");
        let metrics = app.internal.get("/metrics").await.text;
        for labels in [
            "rpc_method=\"revwallet.v1.WalletService/Deposit\",rpc_response_status_code=\"OK\"} 1",
            "rpc_method=\"revwallet.v1.WalletService/GetBalance\",rpc_response_status_code=\"NOT_FOUND\"} 1",
        ] {
            let line = format!("rpc_server_call_duration_seconds_count{{{labels}\n");
            assert!(metrics.contains(&line), "{line} is missing");
        }
    })
    .await;
}

#[tokio::test]
async fn where_access_is_closed_every_call_needs_a_credential() {
    run_with(&["--access=closed"], async |app| {
        let client = GrpcClient::connect(app.address);
        let message = json!({ "user_id": "guest", "amount": 1 });
        let anonymous = client.call("Deposit", message.clone()).await;
        assert_failure(&anonymous, "UNAUTHENTICATED", "unauthenticated");
        let shop = app.api_key(&[Scope::WalletWrite]).await;
        let guest = client.call_with("Deposit", message, bearer(shop.credential())).await;
        assert_failure(&guest, "NOT_FOUND", "user-not-found");
    })
    .await;
}

#[tokio::test]
async fn requests_beyond_the_limit_are_unavailable() {
    run_with(&["--http-requests-max=1"], async |app| {
        let client = GrpcClient::connect(app.address);
        let mut db = app.database.connect().await;
        let mut tx = sqlx::Connection::begin(&mut db).await.unwrap();
        client.call("Deposit", json!({ "user_id": "ada", "amount": 100 })).await;
        sqlx::query("lock table ledger.seal in access exclusive mode")
            .execute(&mut *tx)
            .await
            .unwrap();
        let waiting = app.post("/api/wallet/deposit", json!({ "userId": "ada", "amount": 1 }));
        let refused = async {
            eventually("the deposit is being handled", async || {
                let metrics = app.internal.get("/metrics").await.text;
                metrics.contains("http_server_active_requests 2\n")
            })
            .await;
            let found = client.call("GetBalance", json!({ "user_id": "ada" })).await;
            tx.rollback().await.unwrap();
            found
        };
        let (done, refused) = tokio::join!(waiting, refused);

        assert_eq!(done.status, 200, "{}", done.text);
        let rich = assert_failure(&refused, "UNAVAILABLE", "overloaded");
        assert!(rich["RetryInfo"]["retryDelay"].is_string(), "{rich}");
    })
    .await;
}
