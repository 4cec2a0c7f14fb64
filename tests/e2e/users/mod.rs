//! Users: registration, sign-in, sign-out and profiles.

mod api_keys;
mod audit_log;
mod denials;
mod login_throttle;
mod token;

use http::Method;
use serde_json::{Value, json};

use crate::harness::program::Program;
use crate::harness::users::{User, sign_in};
use crate::harness::{Response, TestApp, run, run_with};

/// Changes a profile with the credentials of a user.
async fn update(user: &User, id: &str, body: Value) -> Response {
    user.send(user.request(Method::PUT, &format!("/api/users/{id}")).json(&body)).await
}

/// Returns the JSON pointers of the invalid fields of a problem.
fn pointers(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().unwrap().iter();
    errors.map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_user_registers_signs_in_and_signs_out() {
    run(async |app| {
        let body = json!({ "username": "ada", "email": "ada@example.com", "password": "test-secret in spring" });
        let registered = app.post("/api/users/register", body).await;
        assert_eq!(registered.status, 200, "{}", registered.text);
        let id = registered.json()["id"].clone();
        let expected = json!({ "message": "User registered successfully", "username": "ada", "id": id });
        assert_eq!(registered.json(), expected);

        let login = json!({ "email": "Ada@Example.com", "password": "test-secret in spring" });
        let signed_in = app.post("/api/users/login", login).await;
        assert_eq!(signed_in.status, 200, "{}", signed_in.text);
        assert_eq!(signed_in.json()["message"], "Login successful");
        let me = app.with_credential(signed_in.json()["token"].as_str().unwrap());
        let path = format!("/api/users/{}", id.as_str().unwrap());
        let profile = me.get(&path).await.json();
        assert_eq!((&profile["username"], &profile["role"]), (&json!("ada"), &json!("user")));
        assert!(!profile.to_string().contains("argon2"));

        let logout = app.post("/api/users/logout", json!({ "token": me.credential() })).await;
        assert_eq!((logout.status, logout.json()), (200, json!({ "message": "Logout successful" })));
        me.get(&path).await.problem(401, "unauthenticated");
        let again = me.post("/api/users/logout", json!({})).await;
        assert_eq!(again.status, 200, "a repeated sign-out succeeds: {}", again.text);
        app.post("/api/users/logout", json!({ "token": "nonsense" })).await.problem(400, "no-token");
        app.post("/api/users/logout", json!({})).await.problem(400, "no-token");
    })
    .await;
}

#[tokio::test]
async fn a_user_below_the_minimum_age_is_refused() {
    run_with(&["--age-min=21"], async |app| {
        let body = |age: Value| json!({ "email": "bob@example.com", "firstName": "Bob", "lastName": "B", "age": age, "password": "test-secret in autumn" });

        let too_young = app.post("/api/users", body(json!(20))).await.problem(400, "invalid-profile");
        assert_eq!(pointers(&too_young), ["/age"]);
        assert_eq!((&too_young["error"], &too_young["details"]), (&json!("Invalid profile"), &too_young["detail"]));
        let old_enough = app.post("/api/users", body(json!(21))).await;
        assert_eq!(old_enough.status, 201, "{}", old_enough.text);
        assert_eq!(old_enough.json()["email"], "bob@example.com");
        assert!(old_enough.json()["id"].is_string());
        let login = json!({ "email": "bob@example.com", "password": "test-secret in autumn" });
        assert_eq!(app.post("/api/users/login", login).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn an_invalid_registration_names_every_invalid_field() {
    run_with(&["--password-policy=uncommon"], async |app| {
        app.user("ada").await;
        let register = async |body: Value| app.post("/api/users/register", body).await.problem(400, "invalid-profile");

        let empty = register(json!({})).await;
        assert_eq!(pointers(&empty), ["/username", "/email", "/password"]);
        let invalid = register(json!({ "username": "a b", "email": "no address", "password": 7, "age": -1 })).await;
        assert_eq!(pointers(&invalid), ["/username", "/email", "/password", "/age"]);
        let body = |name: &str, email: &str, password: &str| json!({ "username": name, "email": email, "password": password });
        let valid = "test-secret in winter";
        assert_eq!(pointers(&register(body("ADA", "other@example.com", valid)).await), ["/username"]);
        assert_eq!(pointers(&register(body("other", "ADA@EXAMPLE.COM", valid)).await), ["/email"]);
        assert_eq!(pointers(&register(body("ada", "ada@example.com", valid)).await), ["/username", "/email"]);
        for weak in ["short 7", "password123", "aaaaaaaaaa", "other2024"] {
            assert_eq!(pointers(&register(body("other", "other@example.com", weak)).await), ["/password"], "{weak}");
        }
        app.send(app.request(Method::POST, "/api/users/register").body("{}")).await.problem(415, "unsupported-media-type");
    })
    .await;
}

#[tokio::test]
async fn a_repeated_registration_creates_one_user() {
    run(async |app| {
        let body =
            json!({ "username": "ada", "email": "ada@example.com", "password": "test-secret in may" });
        let first = app.post_with_key("/api/users/register", "k1", body.clone()).await;
        let again = app.post_with_key("/api/users/register", "k1", body.clone()).await;

        assert_eq!((again.status, &again.text), (200, &first.text));
        assert_eq!(again.header("idempotent-replayed"), "true");
        let other =
            json!({ "username": "eve", "email": "eve@example.com", "password": "test-secret in may" });
        app.post_with_key("/api/users/register", "k1", other).await.problem(422, "idempotency-key-reused");
        app.post_with_key("/api/users/register", "k2", body.clone()).await.problem(400, "invalid-profile");
        let mut changed = body;
        changed["password"] = json!("test-secret in june");
        app.post_with_key("/api/users/register", "k1", changed)
            .await
            .problem(422, "idempotency-key-reused");
    })
    .await;
}

#[tokio::test]
async fn concurrent_registrations_of_one_name_create_one_user() {
    run(async |app| {
        let bodies = (0..8).map(|n| {
            let (email, password) =
                (format!("ada{n}@example.com"), format!("test-secret {n} times"));
            app.post(
                "/api/users/register",
                json!({ "username": "ada", "email": email, "password": password }),
            )
        });
        let responses = futures_util::future::join_all(bodies).await;

        assert_eq!(responses.iter().filter(|response| response.status == 200).count(), 1);
        for response in responses.iter().filter(|response| response.status != 200) {
            response.problem(400, "invalid-profile");
        }
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_can_change_a_profile() {
    run(async |app| {
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);

        let changed =
            update(&ada, &ada.id, json!({ "firstName": "Ada", "email": "countess@example.com" }))
                .await;
        assert_eq!(
            (changed.status, changed.json()),
            (200, json!({ "message": "Profile updated successfully" }))
        );
        let profile = ada.get(&format!("/api/users/{}", ada.id)).await.json();
        assert_eq!(
            (&profile["email"], &profile["username"]),
            (&json!("countess@example.com"), &json!("ada"))
        );
        update(&bob, &ada.id, json!({ "firstName": "Eve" })).await.problem(403, "forbidden");
        bob.get(&format!("/api/users/{}", ada.id)).await.problem(403, "forbidden");
        let taken = update(&bob, &bob.id, json!({ "username": "ADA" }))
            .await
            .problem(400, "invalid-profile");
        assert_eq!(pointers(&taken), ["/username"]);
        update(&bob, &bob.id, json!({ "email": "" })).await.problem(400, "invalid-profile");
        let admin = app.api_key(&[revwallet::auth::Scope::Admin]).await;
        let missing =
            admin.send(admin.request(Method::PUT, "/api/users/999").json(&json!({}))).await;
        assert_eq!(missing.problem(404, "user-not-found")["error"], "User not found");
    })
    .await;
}

#[tokio::test]
async fn a_password_change_ends_every_other_session() {
    run(async |app| {
        let ada = app.user("ada").await;
        let other_session = sign_in(app, "ada", &ada.password).await;
        let me = format!("/api/users/{}", ada.id);
        assert_eq!(other_session.get(&me).await.status, 200);

        let changed = update(&ada, &ada.id, json!({ "password": "test-secret, changed" })).await;

        assert_eq!(changed.status, 200, "{}", changed.text);
        assert_eq!(
            ada.get(&me).await.status,
            200,
            "the session that changed the password stays valid"
        );
        other_session.get(&me).await.problem(401, "unauthenticated");
        let old = json!({ "username": "ada", "password": ada.password });
        app.post("/api/users/login", old).await.problem(401, "invalid-credentials");
        sign_in(app, "ada", "test-secret, changed").await;
    })
    .await;
}

#[tokio::test]
async fn a_sign_out_takes_effect_on_another_process_immediately() {
    run(async |app| {
        let ada = app.user("ada").await;
        let url = format!("--database-url={}", app.database.url);
        let other = Program::start(&[&url, "--access=open", "--allow-unsafe-server"]).await;
        let remote = other.public.with_credential(ada.credential());
        let me = format!("/api/users/{}", ada.id);
        assert_eq!(remote.get(&me).await.status, 200, "a token is valid on every process");

        assert_eq!(
            app.post("/api/users/logout", json!({ "token": ada.credential() })).await.status,
            200
        );

        remote.get(&me).await.problem(401, "unauthenticated");
        assert!(other.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn other_services_look_users_up_with_a_key() {
    run(async |app| {
        let ada = app.user("ada").await;
        let path = format!("/internal/user/{}", ada.id);
        let key = app.api_key(&[revwallet::auth::Scope::UsersRead]).await;

        app.internal.get(&path).await.problem(401, "unauthenticated");
        app.internal.with_credential(ada.credential()).get(&path).await.problem(403, "forbidden");
        let profile = app.internal.with_credential(key.credential()).get(&path).await;
        assert_eq!(
            (profile.status, &profile.json()["username"]),
            (200, &json!("ada")),
            "{}",
            profile.text
        );
        assert!(!profile.text.contains("password") && !profile.text.contains("argon"));
        app.get(&path).await.problem(404, "not-found");
    })
    .await;
}

/// Makes a user an admin, which only the command line can do for the first admin.
fn make_admin(app: &TestApp, name: &str) {
    let url = format!("--database-url={}", app.database.url);
    let arguments = ["user", "role", name, "admin", "--log-filter=warn", &url];
    let output = crate::harness::program::command(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn an_admin_has_every_permission() {
    run_with(&["--access=closed"], async |app| {
        let (root, ada) = (app.user("boss").await, app.user("ada").await);
        let wallet = ada.post("/wallet", json!({ "owner": "ada", "currency": "EUR" })).await.json()
            ["id"]
            .clone();
        let path = format!("/wallet/{}", wallet.as_str().unwrap());
        root.get(&path).await.problem(403, "forbidden");

        make_admin(app, "boss");

        assert_eq!(root.get(&path).await.status, 200);
        let deposit = root.post("/wallet/deposit", json!({ "id": wallet, "amount": 5 })).await;
        assert_eq!(deposit.status, 200, "{}", deposit.text);
        assert_eq!(root.get("/wallet").await.json().as_array().unwrap().len(), 1);
        assert_eq!(root.get(&format!("/api/users/{}", ada.id)).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_session_that_ends_during_a_profile_change_changes_nothing() {
    run_with(&["--password-memory=131072", "--password-passes=4"], async |app| {
        let ada = app.user("ada").await;
        let thief = sign_in(app, "ada", &ada.password).await;

        // The session ends while the request computes the slow password hash.
        let body = json!({ "password": "test-secret by a thief" });
        let path = format!("/api/users/{}", ada.id);
        let change = thief.send(thief.request(Method::PUT, &path).json(&body));
        let logout = async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            app.post("/api/users/logout", json!({ "token": thief.credential() })).await
        };
        let (changed, logout) = tokio::join!(change, logout);

        assert_eq!(logout.status, 200);
        changed.problem(401, "unauthenticated");
        assert_eq!(ada.get(&path).await.status, 200, "the owner's session stays");
        sign_in(app, "ada", &ada.password).await;
    })
    .await;
}

#[tokio::test]
async fn profile_changes_are_throttled_against_enumeration() {
    run(async |app| {
        let ada = app.user("ada").await;
        app.user("bob").await;
        let mut statuses = Vec::new();
        for _ in 0..22 {
            statuses
                .push(update(&ada, &ada.id, json!({ "email": "bob@example.com" })).await.status);
        }
        assert_eq!(statuses[..20], [400; 20]);
        assert_eq!(statuses[20..], [429; 2]);
    })
    .await;
}

#[tokio::test]
async fn concurrent_profile_changes_are_both_applied() {
    run(async |app| {
        let ada = app.user("ada").await;
        let (first, second) = tokio::join!(
            update(&ada, &ada.id, json!({ "firstName": "Ada" })),
            update(&ada, &ada.id, json!({ "lastName": "Lovelace" })),
        );
        assert_eq!((first.status, second.status), (200, 200));
        let profile = ada.get(&format!("/api/users/{}", ada.id)).await.json();
        assert_eq!(
            (&profile["firstName"], &profile["lastName"]),
            (&json!("Ada"), &json!("Lovelace"))
        );
    })
    .await;
}

#[tokio::test]
async fn only_the_operator_can_unfreeze_a_wallet() {
    run(async |app| {
        let ada = app.user("ada").await;
        let opened = ada.post("/wallet", json!({ "owner": "ada", "currency": "EUR" })).await.json();
        let path = format!("/wallet/{}", opened["id"].as_str().unwrap());
        let freeze = async |client: &crate::harness::Client, freeze: bool| {
            client
                .send(client.request(Method::PATCH, &path).json(&json!({ "freeze": freeze })))
                .await
        };
        let key = app.api_key(&[revwallet::auth::Scope::WalletWrite]).await;

        assert_eq!(freeze(&ada, true).await.status, 200, "an owner can freeze a wallet");
        freeze(&ada, false).await.problem(403, "forbidden");
        assert_eq!(freeze(&key, false).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn without_self_service_funding_no_request_creates_money() {
    run_with(&["--access=open", "--self-service-funding=false"], async |app| {
        let opened = app.post("/wallet", json!({ "owner": "x", "currency": "EUR" })).await;
        assert_eq!(opened.status, 201, "an empty wallet can be opened");
        let id = opened.json()["id"].clone();
        app.post("/wallet/deposit", json!({ "id": id, "amount": 5 }))
            .await
            .problem(401, "unauthenticated");
        let funded = json!({ "owner": "x", "currency": "EUR", "initial_balance": 5 });
        app.post("/wallet", funded).await.problem(401, "unauthenticated");
    })
    .await;
}

#[tokio::test]
async fn a_user_from_before_names_were_normalized_signs_in() {
    run(async |app| {
        let password = app.user("early").await.password;
        app.user("taken").await;
        for (name, email) in [("ｅａｒｌｙ", "ÉARLY@example.com"), ("ｔａｋｅｎ", "e\u{301}arly@example.com")] {
            let statement = format!(
                "insert into app_user (username, email, password_hash)
                 select '{name}', '{email}', password_hash from app_user where username = 'early'"
            );
            app.database.execute(&statement).await;
        }
        app.database.execute("update app_user set username = 'other' where username = 'early'").await;

        app.database.execute(include_str!("../../../migrations/0023_normalized_names.sql")).await;

        for login in ["ｅａｒｌｙ", "early"] {
            sign_in(app, login, &password).await;
        }
        let body = json!({ "email": "éarly@example.com", "password": password });
        assert_eq!(app.post("/api/users/login", body).await.status, 200);
        let mut db = app.database.connect().await;
        let kept = "select count(*) from app_user where username = 'ｔａｋｅｎ' and email = 'e\u{301}arly@example.com'";
        assert_eq!(sqlx::query_scalar::<_, i64>(kept).fetch_one(&mut db).await.unwrap(), 1);
    })
    .await;
}
