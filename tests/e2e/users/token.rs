//! Tokens: validation, expiry, rotation of signing keys, and rehashing of passwords.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::program::{Program, command};
use crate::harness::users::sign_in;
use crate::harness::{run, run_with};

const SECRET: &str = "--jwt-secret=first test-secret that is long enough";

/// Decodes a part of a JWT.
fn part(token: &str, n: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(n).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn only_an_unmodified_token_is_accepted() {
    run(async |app| {
        let ada = app.user("ada").await;
        let eve = app.user("eve").await;
        let me = format!("/api/users/{}", ada.id);
        let token = ada.credential().to_owned();
        let (header, claims) = (part(&token, 0), part(&token, 1));
        assert_eq!((&header["alg"], &claims["sub"]), (&json!("HS256"), &json!(ada.id)));
        assert!(header["kid"].is_string() && claims["exp"].is_i64() && claims["jti"].is_string());
        let signature = token.split('.').nth(2).unwrap();

        let with_header = |change: Value| {
            let mut header = header.clone();
            header.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            format!("{}.{}.{signature}", encoded(&header), encoded(&claims))
        };
        let mut foreign = claims.clone();
        foreign["jti"] = part(eve.credential(), 1)["jti"].clone();
        let forged = [
            "nonsense".to_owned(),
            String::new(),
            "a.b.c".to_owned(),
            format!("{}.{}.", encoded(&json!({ "alg": "none", "typ": "JWT" })), encoded(&claims)),
            with_header(json!({ "alg": "none" })),
            with_header(json!({ "alg": "HS512" })),
            with_header(json!({ "alg": "RS256" })),
            with_header(json!({ "kid": "other" })),
            format!("{}.{}.{signature}", encoded(&header), encoded(&foreign)),
            format!("{token}x"),
            token[..token.len() - 2].to_owned(),
            "x".repeat(5_000),
        ];
        for forged in &forged {
            app.with_credential(forged).get(&me).await.problem(401, "unauthenticated");
        }
        let response = app.with_credential("nonsense").get(&me).await;
        assert_eq!(response.header("www-authenticate"), "Bearer");
        let scheme =
            app.request(http::Method::GET, &me).header("authorization", format!("Basic {token}"));
        app.send(scheme).await.problem(401, "unauthenticated");
        let lower_case =
            app.request(http::Method::GET, &me).header("authorization", format!("bearer {token}"));
        assert_eq!(app.send(lower_case).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_token_expires() {
    run_with(&["--token-lifetime=1s"], async |app| {
        let ada = app.user("ada").await;
        let me = format!("/api/users/{}", ada.id);

        tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;

        ada.get(&me).await.problem(401, "unauthenticated");
        app.post("/api/users/logout", json!({ "token": ada.credential() }))
            .await
            .problem(400, "no-token");
    })
    .await;
}

#[tokio::test]
async fn after_a_rotation_tokens_of_both_keys_are_accepted_by_every_process() {
    run(async |app| {
        let ada = app.user("ada").await;
        let me = format!("/api/users/{}", ada.id);
        let url = format!("--database-url={}", app.database.url);

        let rotated = command(&["jwt", "rotate", "--log-filter=warn", &url]).output().unwrap();

        assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
        let other = Program::start(&[&url, "--access=open", "--allow-unsafe-server"]).await;
        let newer = sign_in(&other.public, "ada", &ada.password).await;
        assert_ne!(part(ada.credential(), 0)["kid"], part(newer.credential(), 0)["kid"]);
        assert_eq!(newer.get(&me).await.status, 200);
        assert_eq!(
            app.with_credential(newer.credential()).get(&me).await.status,
            200,
            "the app loads a signing key that it does not know yet"
        );
        assert_eq!(
            other.public.with_credential(ada.credential()).get(&me).await.status,
            200,
            "the previous signing key is still accepted"
        );
        assert!(other.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn a_configured_secret_is_changed_with_an_overlap() {
    run_with(&[SECRET], async |app| {
        let ada = app.user("ada").await;
        let me = format!("/api/users/{}", ada.id);
        let url = format!("--database-url={}", app.database.url);
        let previous = SECRET.replace("--jwt-secret", "--jwt-secret-before");
        let new = "--jwt-secret=another test-secret that is long enough";
        let start = async |settings: &[&str]| {
            Program::start(
                &[&[&url as &str, "--access=open", "--allow-unsafe-server"], settings].concat(),
            )
            .await
        };

        let (overlapping, strict) = (start(&[new, &previous]).await, start(&[new]).await);

        assert_eq!(overlapping.public.with_credential(ada.credential()).get(&me).await.status, 200);
        strict
            .public
            .with_credential(ada.credential())
            .get(&me)
            .await
            .problem(401, "unauthenticated");
        assert!(overlapping.stop().await.success());
        assert!(strict.stop().await.success());
        let short = command(&[
            "--jwt-secret=short",
            &url,
            "--listen=127.0.0.1:0",
            "--internal-listen=127.0.0.1:0",
            "--allow-unsafe-server",
        ])
        .output()
        .unwrap();
        assert_eq!(short.status.code(), Some(1));
        let rotate = command(&["jwt", "rotate", new, &url]).output().unwrap();
        assert_eq!(
            rotate.status.code(),
            Some(1),
            "with a configured secret, no key in the database can be rotated"
        );
    })
    .await;
}

#[tokio::test]
async fn an_outdated_password_hash_is_upgraded_at_the_next_login() {
    run(async |app| {
        let ada = app.user("ada").await;
        let url = format!("--database-url={}", app.database.url);
        let stronger = ["--password-memory=1024", "--password-passes=1"];
        let other = Program::start(
            &[&[&url as &str, "--access=open", "--allow-unsafe-server"], &stronger[..]].concat(),
        )
        .await;
        let hash = async || {
            let mut db = app.database.connect().await;
            sqlx::query_scalar::<_, String>(
                "select password_hash from app_user where username = 'ada'",
            )
            .fetch_one(&mut db)
            .await
            .unwrap()
        };
        assert!(hash().await.contains("m=512,"));

        sign_in(&other.public, "ada", &ada.password).await;

        assert!(hash().await.contains("m=1024,"), "{}", hash().await);
        sign_in(app, "ada", &ada.password).await;
        assert!(hash().await.contains("m=1024,"), "a weaker setting must not downgrade the hash");
        assert!(other.stop().await.success());
    })
    .await;
}
