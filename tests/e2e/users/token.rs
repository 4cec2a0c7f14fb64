//! Tokens: which are believed, and what becomes of them when keys and settings change.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::people::sign_in;
use crate::harness::program::{Program, command};
use crate::harness::{run, run_with};

const SECRET: &str = "--jwt-secret=planted and long enough for anybody";

fn part(token: &str, n: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(n).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn only_a_token_as_it_was_signed_is_believed() {
    run(async |app| {
        let ada = app.person("ada").await;
        let eve = app.person("eve").await;
        let me = format!("/api/users/{}", ada.id);
        let token = ada.credential().to_owned();
        let (head, claims) = (part(&token, 0), part(&token, 1));
        assert_eq!((&head["alg"], &claims["sub"]), (&json!("HS256"), &json!(ada.id)));
        assert!(head["kid"].is_string() && claims["exp"].is_i64() && claims["jti"].is_string());
        let signature = token.split('.').nth(2).unwrap();

        let with_head = |change: Value| {
            let mut head = head.clone();
            head.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            format!("{}.{}.{signature}", encoded(&head), encoded(&claims))
        };
        let mut foreign = claims.clone();
        foreign["jti"] = part(eve.credential(), 1)["jti"].clone();
        let forged = [
            "nonsense".to_owned(),
            String::new(),
            "a.b.c".to_owned(),
            format!("{}.{}.", encoded(&json!({ "alg": "none", "typ": "JWT" })), encoded(&claims)),
            with_head(json!({ "alg": "none" })),
            with_head(json!({ "alg": "HS512" })),
            with_head(json!({ "alg": "RS256" })),
            with_head(json!({ "kid": "other" })),
            format!("{}.{}.{signature}", encoded(&head), encoded(&foreign)),
            format!("{token}x"),
            token[..token.len() - 2].to_owned(),
            "x".repeat(5_000),
        ];
        for forged in &forged {
            app.with(forged).get(&me).await.problem(401, "unauthenticated");
        }
        let answer = app.with("nonsense").get(&me).await;
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        let scheme =
            app.request(http::Method::GET, &me).header("authorization", format!("Basic {token}"));
        app.send(scheme).await.problem(401, "unauthenticated");
        let lower =
            app.request(http::Method::GET, &me).header("authorization", format!("bearer {token}"));
        assert_eq!(app.send(lower).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_token_ends_by_itself() {
    run_with(&["--token-lifetime=1s"], async |app| {
        let ada = app.person("ada").await;
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
async fn after_a_rotation_tokens_of_both_keys_are_believed_everywhere() {
    run(async |app| {
        let ada = app.person("ada").await;
        let me = format!("/api/users/{}", ada.id);
        let url = format!("--database-url={}", app.database.url);

        let rotated = command(&["jwt", "rotate", "--log-filter=warn", &url]).output().unwrap();

        assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
        let other = Program::start(&[&url, "--access=open", "--allow-unsafe-server"]).await;
        let newer = sign_in(&other.public, "ada", &ada.password).await;
        assert_ne!(part(ada.credential(), 0)["kid"], part(newer.credential(), 0)["kid"]);
        assert_eq!(newer.get(&me).await.status, 200);
        assert_eq!(
            app.with(newer.credential()).get(&me).await.status,
            200,
            "a key it has not seen yet"
        );
        assert_eq!(
            other.public.with(ada.credential()).get(&me).await.status,
            200,
            "the key before"
        );
        assert!(other.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn a_secret_of_ones_own_is_changed_with_an_overlap() {
    run_with(&[SECRET], async |app| {
        let ada = app.person("ada").await;
        let me = format!("/api/users/{}", ada.id);
        let url = format!("--database-url={}", app.database.url);
        let before = SECRET.replace("--jwt-secret", "--jwt-secret-before");
        let new = "--jwt-secret=another that is planted and long enough";
        let start = async |settings: &[&str]| {
            Program::start(
                &[&[&url as &str, "--access=open", "--allow-unsafe-server"], settings].concat(),
            )
            .await
        };

        let (overlapping, strict) = (start(&[new, &before]).await, start(&[new]).await);

        assert_eq!(overlapping.public.with(ada.credential()).get(&me).await.status, 200);
        strict.public.with(ada.credential()).get(&me).await.problem(401, "unauthenticated");
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
        assert_eq!(rotate.status.code(), Some(1), "there is nothing in the database to rotate");
    })
    .await;
}

#[tokio::test]
async fn a_hash_that_has_become_too_cheap_is_replaced_at_the_next_login() {
    run(async |app| {
        let ada = app.person("ada").await;
        let url = format!("--database-url={}", app.database.url);
        let dearer = ["--password-memory=1024", "--password-passes=1"];
        let other = Program::start(
            &[&[&url as &str, "--access=open", "--allow-unsafe-server"], &dearer[..]].concat(),
        )
        .await;
        let hash = async || {
            let mut db = app.database.connect().await;
            sqlx::query_scalar::<_, String>("select password_hash from app_user")
                .fetch_one(&mut db)
                .await
                .unwrap()
        };
        assert!(hash().await.contains("m=512,"));

        sign_in(&other.public, "ada", &ada.password).await;

        assert!(hash().await.contains("m=1024,"), "{}", hash().await);
        sign_in(app, "ada", &ada.password).await;
        assert!(hash().await.contains("m=1024,"), "never cheaper");
        assert!(other.stop().await.success());
    })
    .await;
}
