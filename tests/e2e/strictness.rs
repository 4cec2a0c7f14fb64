//! Strictness: unknown or malformed input is refused, and every refusal names the member.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Client, Response, TestApp, run};

/// Returns the pointers in the errors of a problem.
fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {problem}"));
    errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}

/// Posts a body as it is written, not as a JSON library would write it.
async fn post_text(client: &Client, path: &str, body: &'static str) -> Response {
    let request = client.request(Method::POST, path).header("content-type", "application/json");
    client.send(request.body(body)).await
}

async fn balance(app: &TestApp, id: &str) -> String {
    app.get(&format!("/wallet/balance/{id}")).await.json()["balance"].to_string()
}

#[tokio::test]
async fn an_array_is_no_object_in_any_body() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10.00").await;
        assert_eq!(id, "1");
        for (method, path, body) in [
            (Method::POST, "/wallet/deposit", r#"["1","1.00"]"#),
            (Method::POST, "/api/wallet/deposit", r#"["1",100]"#),
            (Method::POST, "/wallet/withdraw", r#"["1","1.00"]"#),
            (Method::POST, "/wallet", r#"["ada","5.00","EUR"]"#),
            (Method::POST, "/wallet/hold", r#"["1","1.00",60]"#),
            (Method::POST, "/wallet/transfer", r#"["1","2","1.00"]"#),
            (Method::POST, "/wallet/refund", r#"["1"]"#),
            (Method::POST, "/wallet/batch", r"[true,[]]"),
            (Method::PATCH, "/wallet/1", r#"["label"]"#),
            (Method::POST, "/wallet/webhook", r#"["https://example.com",["*"]]"#),
            (Method::POST, "/wallet/1/alert", r#"["1.00"]"#),
            (Method::POST, "/api/users/register", r#"["ada","ada@example.com","test-secret!"]"#),
            (Method::POST, "/api/users/login", r#"["ada@example.com","ada","test-secret!"]"#),
            (Method::POST, "/api/users/logout", r#"["token"]"#),
        ] {
            let request = app.request(method.clone(), path);
            let request = request.header("content-type", "application/json").body(body);

            let problem = app.send(request).await.problem(422, "invalid");

            assert_eq!(pointers(&problem), [""], "{method} {path}");
            let detail = problem["detail"].as_str().unwrap();
            assert_eq!(detail, "the body must be an object (line 1, column 0)", "{method} {path}");
        }
        let element = post_text(app, "/wallet/batch", r#"{"transfers":[["1","2","1.00"]]}"#).await;
        assert_eq!(pointers(&element.problem(422, "invalid")), ["/transfers/0"]);
        assert_eq!(balance(app, &id).await, "10.0");
    })
    .await;
}

#[tokio::test]
async fn unknown_members_are_refused_by_name() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10.00").await;
        let other = app.open_wallet("EUR", "10.00").await;

        let body = json!({ "id": id, "amount": "1.00", "currency": "USD", "no/te": { "a": 1 } });
        let problem = app.post("/wallet/deposit", body).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), ["/currency", "/no~1te"]);

        let transfer = |more: Value| {
            let mut transfer = json!({ "from": id, "to": other, "amount": "1.00" });
            transfer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            transfer
        };
        let transfers = json!([
            transfer(json!({})),
            transfer(json!({ "ref": "a" })),
            transfer(json!({ "metadata": { "any": { "thing": 1 } }, "note": 1 })),
        ]);
        for atomic in [true, false] {
            let body = json!({ "atomic": atomic, "transfers": transfers, "mode": 1 });
            let problem = app.post("/wallet/batch", body).await.problem(422, "invalid");
            let mut found = pointers(&problem);
            found.sort_unstable();
            assert_eq!(found, ["/mode", "/transfers/1/ref", "/transfers/2/note"]);
        }
        let twice = r#"{"id":"1","amount":"1.00","amount":"2.00"}"#;
        let problem = post_text(app, "/wallet/deposit", twice).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), ["/amount"]);
        for id in [&id, &other] {
            assert_eq!(balance(app, id).await, "10.0");
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_for_an_operation_without_members_is_refused() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10.00").await;
        let hold = app.post("/wallet/hold", json!({ "id": id, "amount": "4.00" })).await.json();
        let void = format!("/wallet/hold/{}/void", hold["id"].as_str().unwrap());
        for path in [&*void, "/wallet/probe", "/wallet/webhook/1/rotate"] {
            let problem = app.post(path, json!({ "amount": "1.00" })).await.problem(422, "invalid");
            assert_eq!(pointers(&problem), ["/amount"], "{path}");
        }
        assert_eq!(app.send(app.request(Method::POST, &void)).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn unknown_query_parameters_are_refused_by_name() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10.00").await;
        for (method, path, expected) in [
            (Method::GET, "/wallet?ownr=ada&limit=5&x", vec!["?ownr", "?x"]),
            (Method::GET, "/wallet/1?at=2026-01-01T00:00:00Z", vec!["?at"]),
            (Method::GET, "/wallet/1/history?before=3", vec!["?before"]),
            (Method::POST, "/wallet/deposit?dry_run=true", vec!["?dry_run"]),
            (Method::DELETE, "/wallet/1?force=1", vec!["?force"]),
            (Method::GET, "/wallet?limit=x", vec!["?limit"]),
            (Method::GET, "/wallet?closed=maybe", vec!["?closed"]),
            (Method::GET, "/wallet?owner=a&owner=b", vec!["?owner"]),
            (Method::GET, &format!("/wallet?{}ownr=ada", "limit=5&".repeat(40)), vec!["?ownr"]),
        ] {
            let body = json!({ "id": id, "amount": "1.00" });
            let response = app.send(app.request(method.clone(), path).json(&body)).await;

            let problem = response.problem(422, "invalid");
            assert_eq!(pointers(&problem), expected, "{method} {path}");
            for rust in ["deserialize", "i64", "bool", "ParseInt", "expected"] {
                assert!(!response.text.contains(rust), "{}", response.text);
            }
        }
        assert_eq!(balance(app, &id).await, "10.0");
    })
    .await;
}

#[tokio::test]
async fn text_that_postgres_cannot_store_is_refused() {
    run(async |app| {
        app.open_wallet("EUR", "10.00").await;
        for path in ["/wallet?owner=%00", "/wallet?owner=a%00b&limit=2", "/wallet?currency=E%00R"] {
            app.get(path).await.problem(422, "invalid");
        }
        let admin = app.api_key(&[revwallet::auth::Scope::Admin]).await;
        admin.get("/api/audit?subject=user%3A%00").await.problem(422, "invalid");
        for path in ["/wallet/%00", "/wallet/1%00", "/problems/%00", "/wallet/transfer/%00"] {
            app.get(path).await.problem(404, "not-found");
        }
        for (path, body) in [
            ("/wallet", json!({ "owner": "a\0", "currency": "EUR" })),
            ("/wallet", json!({ "owner": "a", "currency": "E\0R" })),
            ("/wallet/webhook", json!({ "url": "https://example.com/\0", "events": ["*"] })),
            ("/wallet/webhook", json!({ "url": "https://example.com/", "events": ["\0"] })),
            ("/api/users/login", json!({ "username": "a\0", "password": "test-secret" })),
        ] {
            app.post(path, body).await.problem(422, "invalid");
        }
    })
    .await;
}

#[tokio::test]
async fn moments_that_leave_the_calendar_are_refused() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10.00").await;
        for moment in ["9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00%2B23:59"] {
            for path in [
                format!("/wallet/{id}/history?from={moment}"),
                format!("/wallet/{id}/history?to={moment}"),
                format!("/wallet/{id}/statement?from={moment}"),
                format!("/wallet/{id}/statement?to={moment}"),
                format!("/wallet/balance/{id}?at={moment}"),
            ] {
                app.get(&path).await.problem(422, "invalid");
            }
        }
        for moment in ["9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z"] {
            for member in ["from", "to"] {
                for view in ["history", "statement"] {
                    let path = format!("/wallet/{id}/{view}?{member}={moment}");
                    assert_eq!(app.get(&path).await.status, 200, "{path}");
                }
            }
        }
        for after in [i64::MIN, -1, 0, i64::MAX] {
            for path in [
                format!("/wallet?after={after}"),
                format!("/wallet/{id}/history?after={after}"),
                format!("/wallet/{id}/holds?after={after}"),
            ] {
                assert_eq!(app.get(&path).await.status, 200, "{path}");
            }
            if after != 0 {
                for thing in ["wallet", "wallet/transfer", "wallet/hold", "wallet/balance"] {
                    let path = format!("/{thing}/{after}");
                    app.get(&path).await.problem(404, "not-found");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn amounts_in_the_problems_of_a_batch_are_exact() {
    run(async |app| {
        let from = app.open_wallet("ETH", "0.10000000").await;
        let to = app.open_wallet("ETH", "0").await;
        let transfers = json!([{ "from": from, "to": to, "amount": "0.30000000" }]);

        let response = app.post("/wallet/batch", json!({ "transfers": transfers })).await;

        assert_eq!(response.status, 200, "{}", response.text);
        let exact = r#""available":0.10000000,"required":0.30000000,"#;
        assert!(response.text.contains(exact), "{}", response.text);
    })
    .await;
}

#[tokio::test]
async fn refusals_say_which_wallet() {
    run(async |app| {
        let from = app.open_wallet("EUR", "10.00").await;
        let to = app.open_wallet("EUR", "0").await;
        let frozen = app.open_wallet("EUR", "5.00").await;
        let closed = app.open_wallet("EUR", "0").await;
        let freeze = app.request(Method::PATCH, &format!("/wallet/{frozen}"));
        assert_eq!(app.send(freeze.json(&json!({ "freeze": true }))).await.status, 200);
        let close = app.request(Method::DELETE, &format!("/wallet/{closed}"));
        assert_eq!(app.send(close).await.status, 204);

        for (from, to, status, slug, pointer, wallet) in [
            ("99", &*to, 404, "not-found", "from", "99"),
            (&*from, "98", 404, "not-found", "to", "98"),
            (&*frozen, &*to, 409, "wallet-frozen", "from", &*frozen),
            (&*closed, &*to, 409, "wallet-closed", "from", &*closed),
            (&*from, &*closed, 409, "wallet-closed", "to", &*closed),
        ] {
            let transfer = json!({ "from": from, "to": to, "amount": "1.00" });

            let problem =
                app.post("/wallet/transfer", transfer.clone()).await.problem(status, slug);
            assert_eq!(problem["wallet"], wallet, "{problem}");
            assert_eq!(pointers(&problem), [format!("/{pointer}")]);
            assert!(problem["detail"].as_str().unwrap().contains(&format!("wallet {wallet}")));

            let good = json!({ "from": *to, "to": *from, "amount": "1.00" });
            let good = if pointer == "to" {
                json!({ "from": *from, "to": "2", "amount": "0.01" })
            } else {
                good
            };
            let transfers = json!([good, transfer]);
            let body = json!({ "transfers": [transfers[1]] });
            let each = app.post("/wallet/batch", body).await;
            let problem = each.json()["results"][0]["problem"].clone();
            assert_eq!(problem["wallet"], wallet, "{problem}");
            assert_eq!(pointers(&problem), [format!("/transfers/0/{pointer}")]);

            let all = json!({ "atomic": true, "transfers": [
                { "from": "1", "to": "2", "amount": "0.01" }, transfers[1]
            ] });
            let problem = app.post("/wallet/batch", all).await.problem(status, slug);
            assert_eq!(problem["wallet"], wallet, "{problem}");
            assert_eq!(pointers(&problem), [format!("/transfers/1/{pointer}")]);
        }
        for path in ["/wallet/deposit", "/wallet/withdraw", "/wallet/hold"] {
            let body = json!({ "id": closed, "amount": "1.00" });
            let problem = app.post(path, body).await.problem(409, "wallet-closed");
            assert_eq!((&problem["wallet"], pointers(&problem)), (&json!(closed), vec!["/id"]));
        }
        assert_eq!(app.get("/wallet/97").await.problem(404, "not-found")["wallet"], "97");
    })
    .await;
}

#[tokio::test]
async fn a_limit_is_named_when_it_is_exceeded() {
    run(async |app| {
        let id = app.open_wallet("EUR", "0").await;

        let body = json!({ "id": id, "amount": "10000000000.01" });
        let problem = app.post("/wallet/deposit", body).await.problem(422, "amount-too-large");

        assert_eq!(problem["detail"], "the amount exceeds the maximum of 10000000000.00");
    })
    .await;
}

#[tokio::test]
async fn a_capture_needs_no_body() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10.00").await;
        for amount in ["1.00", "2.00"] {
            let hold = app.post("/wallet/hold", json!({ "id": id, "amount": amount })).await.json();
            let path = format!("/wallet/hold/{}/capture", hold["id"].as_str().unwrap());
            let request = app.request(Method::POST, &path);
            let request = match amount {
                "1.00" => request,
                _ => request.header("content-type", "application/json"),
            };

            let captured = app.send(request).await;

            assert_eq!(captured.status, 200, "{}", captured.text);
            assert!(captured.text.contains(&format!("\"captured\":{amount}")), "{}", captured.text);
        }
        let hold = app.post("/wallet/hold", json!({ "id": id, "amount": "1.00" })).await.json();
        let path = format!("/wallet/hold/{}/capture", hold["id"].as_str().unwrap());
        let untyped = app.request(Method::POST, &path).body("{}");
        app.send(untyped).await.problem(415, "unsupported-media-type");
        let unknown = app.post(&path, json!({ "ammount": "1.00" })).await.problem(422, "invalid");
        assert_eq!(pointers(&unknown), ["/ammount"]);
    })
    .await;
}

#[tokio::test]
async fn names_that_deceive_are_refused() {
    run(async |app| {
        let register = async |username: &str, email: &str| {
            let body = json!({ "username": username, "email": email, "password": "a test-secret" });
            app.post("/api/users/register", body).await
        };
        for (username, email, pointer) in [
            ("admin", "a1@example.com", "/username"),
            ("ADMIN", "a2@example.com", "/username"),
            ("Rev-Wallet", "a3@example.com", "/username"),
            ("eve1", "a\u{202e}b@example.com", "/email"),
            ("eve2", "a\u{200b}b@example.com", "/email"),
            ("eve3\u{2066}", "a4@example.com", "/username"),
        ] {
            let problem = register(username, email).await.problem(400, "invalid-profile");
            assert_eq!(pointers(&problem), [pointer], "{username} {email}");
        }
        assert_eq!(register("Mallory", "M\u{fc}@example.com").await.status, 200);
        for (username, email, pointer) in [
            ("mALLORY", "m1@example.com", "/username"),
            ("\u{ff2d}allory", "m2@example.com", "/username"),
            ("mallory2", "m\u{dc}@EXAMPLE.com", "/email"),
            ("mallory3", "\u{ff4d}u\u{308}@example.com", "/email"),
        ] {
            let problem = register(username, email).await.problem(400, "invalid-profile");
            assert_eq!(pointers(&problem), [pointer], "{username} {email}");
        }
        for name in ["MALLORY", "m\u{dc}@example.com", "\u{ff2d}allory"] {
            let body = json!({ "username": name, "password": "a test-secret" });
            assert_eq!(app.post("/api/users/login", body).await.status, 200, "{name}");
        }
    })
    .await;
}
