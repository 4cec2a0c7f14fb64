//! People: registering, signing in and out, and what they tell about themselves.

mod api_keys;
mod audit_log;
mod login_throttle;
mod matrix;
mod token;

use http::Method;
use serde_json::{Value, json};

use crate::harness::people::{Person, sign_in};
use crate::harness::program::Program;
use crate::harness::{Answer, TestApp, run, run_with};

async fn update(person: &Person, id: &str, body: Value) -> Answer {
    person.send(person.request(Method::PUT, &format!("/api/users/{id}")).json(&body)).await
}

fn pointers(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().unwrap().iter();
    errors.map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_user_registers_signs_in_and_out_as_in_the_seed() {
    run(async |app| {
        let body = json!({ "username": "ada", "email": "ada@example.com", "password": "planted in spring" });
        let registered = app.post("/api/users/register", body).await;
        assert_eq!(registered.status, 200, "{}", registered.text);
        let id = registered.json()["id"].clone();
        let expected = json!({ "message": "User registered successfully", "username": "ada", "id": id });
        assert_eq!(registered.json(), expected);

        let login = json!({ "email": "Ada@Example.com", "password": "planted in spring" });
        let signed_in = app.post("/api/users/login", login).await;
        assert_eq!(signed_in.status, 200, "{}", signed_in.text);
        assert_eq!(signed_in.json()["message"], "Login successful");
        let me = app.with(signed_in.json()["token"].as_str().unwrap());
        let path = format!("/api/users/{}", id.as_str().unwrap());
        let seen = me.get(&path).await.json();
        assert_eq!((&seen["username"], &seen["role"]), (&json!("ada"), &json!("user")));
        assert!(!seen.to_string().contains("argon2"));

        let out = app.post("/api/users/logout", json!({ "token": me.credential() })).await;
        assert_eq!((out.status, out.json()), (200, json!({ "message": "Logout successful" })));
        me.get(&path).await.problem(401, "unauthenticated");
        let again = me.post("/api/users/logout", json!({})).await;
        assert_eq!(again.status, 200, "it is out: {}", again.text);
        app.post("/api/users/logout", json!({ "token": "nonsense" })).await.problem(400, "no-token");
        app.post("/api/users/logout", json!({})).await.problem(400, "no-token");
    })
    .await;
}

#[tokio::test]
async fn a_user_of_the_gaming_platform_must_be_of_age() {
    run_with(&["--age-min=21"], async |app| {
        let body = |age: Value| json!({ "email": "bob@example.com", "firstName": "Bob", "lastName": "B", "age": age, "password": "planted in autumn" });

        let young = app.post("/api/users", body(json!(20))).await.problem(400, "invalid-profile");
        assert_eq!(pointers(&young), ["/age"]);
        assert_eq!((&young["error"], &young["details"]), (&json!("Invalid profile"), &young["detail"]));
        let old = app.post("/api/users", body(json!(21))).await;
        assert_eq!(old.status, 201, "{}", old.text);
        assert_eq!(old.json()["email"], "bob@example.com");
        assert!(old.json()["id"].is_string());
        let login = json!({ "email": "bob@example.com", "password": "planted in autumn" });
        assert_eq!(app.post("/api/users/login", login).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_a_user_is_told_why() {
    run(async |app| {
        app.person("ada").await;
        let register = async |body: Value| app.post("/api/users/register", body).await.problem(400, "invalid-profile");

        let nothing = register(json!({})).await;
        assert_eq!(pointers(&nothing), ["/username", "/email", "/password"]);
        let all = register(json!({ "username": "a b", "email": "nobody", "password": 7, "age": -1 })).await;
        assert_eq!(pointers(&all), ["/username", "/email", "/password", "/age"]);
        let body = |name: &str, email: &str, password: &str| json!({ "username": name, "email": email, "password": password });
        let fine = "planted in winter";
        assert_eq!(pointers(&register(body("ADA", "other@example.com", fine)).await), ["/username"]);
        assert_eq!(pointers(&register(body("other", "ADA@EXAMPLE.COM", fine)).await), ["/email"]);
        assert_eq!(pointers(&register(body("ada", "ada@example.com", fine)).await), ["/username", "/email"]);
        for weak in ["short 7", "password123", "aaaaaaaaaa", "other2024"] {
            assert_eq!(pointers(&register(body("other", "other@example.com", weak)).await), ["/password"], "{weak}");
        }
        app.send(app.request(Method::POST, "/api/users/register").body("{}")).await.problem(415, "unsupported-media-type");
    })
    .await;
}

#[tokio::test]
async fn a_registration_that_comes_twice_is_done_once() {
    run(async |app| {
        let body =
            json!({ "username": "ada", "email": "ada@example.com", "password": "planted in may" });
        let first = app.keyed("/api/users/register", "k1", body.clone()).await;
        let again = app.keyed("/api/users/register", "k1", body.clone()).await;

        assert_eq!((again.status, &again.text), (200, &first.text));
        assert_eq!(again.header("idempotent-replayed"), "true");
        let other =
            json!({ "username": "eve", "email": "eve@example.com", "password": "planted in may" });
        app.keyed("/api/users/register", "k1", other).await.problem(422, "idempotency-key-reused");
        app.keyed("/api/users/register", "k2", body.clone()).await.problem(400, "invalid-profile");
        let mut changed = body;
        changed["password"] = json!("planted in june");
        app.keyed("/api/users/register", "k1", changed)
            .await
            .problem(422, "idempotency-key-reused");
    })
    .await;
}

#[tokio::test]
async fn registrations_at_once_with_one_name_make_one_user() {
    run(async |app| {
        let bodies = (0..8).map(|n| {
            let (email, password) = (format!("ada{n}@example.com"), format!("planted {n} times"));
            app.post(
                "/api/users/register",
                json!({ "username": "ada", "email": email, "password": password }),
            )
        });
        let answers = futures_util::future::join_all(bodies).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.problem(400, "invalid-profile");
        }
    })
    .await;
}

#[tokio::test]
async fn a_profile_is_changed_by_its_owner_only() {
    run(async |app| {
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);

        let changed =
            update(&ada, &ada.id, json!({ "firstName": "Ada", "email": "countess@example.com" }))
                .await;
        assert_eq!(
            (changed.status, changed.json()),
            (200, json!({ "message": "Profile updated successfully" }))
        );
        let seen = ada.get(&format!("/api/users/{}", ada.id)).await.json();
        assert_eq!(
            (&seen["email"], &seen["username"]),
            (&json!("countess@example.com"), &json!("ada"))
        );
        update(&bob, &ada.id, json!({ "firstName": "Eve" })).await.problem(403, "forbidden");
        bob.get(&format!("/api/users/{}", ada.id)).await.problem(403, "forbidden");
        let taken = update(&bob, &bob.id, json!({ "username": "ADA" }))
            .await
            .problem(400, "invalid-profile");
        assert_eq!(pointers(&taken), ["/username"]);
        update(&bob, &bob.id, json!({ "email": "" })).await.problem(400, "invalid-profile");
        let admin = app.key(&[revwallet::auth::Scope::Admin]).await;
        let missing =
            admin.send(admin.request(Method::PUT, "/api/users/999").json(&json!({}))).await;
        assert_eq!(missing.problem(404, "user-not-found")["error"], "User not found");
    })
    .await;
}

#[tokio::test]
async fn a_changed_password_ends_every_other_session() {
    run(async |app| {
        let ada = app.person("ada").await;
        let elsewhere = sign_in(app, "ada", &ada.password).await;
        let me = format!("/api/users/{}", ada.id);
        assert_eq!(elsewhere.get(&me).await.status, 200);

        let changed = update(&ada, &ada.id, json!({ "password": "planted anew" })).await;

        assert_eq!(changed.status, 200, "{}", changed.text);
        assert_eq!(ada.get(&me).await.status, 200, "whoever changed it stays");
        elsewhere.get(&me).await.problem(401, "unauthenticated");
        let old = json!({ "username": "ada", "password": ada.password });
        app.post("/api/users/login", old).await.problem(401, "invalid-credentials");
        sign_in(app, "ada", "planted anew").await;
    })
    .await;
}

#[tokio::test]
async fn a_logout_holds_on_another_process_at_once() {
    run(async |app| {
        let ada = app.person("ada").await;
        let url = format!("--database-url={}", app.database.url);
        let other = Program::start(&[&url, "--access=open", "--allow-unsafe-server"]).await;
        let there = other.public.with(ada.credential());
        let me = format!("/api/users/{}", ada.id);
        assert_eq!(there.get(&me).await.status, 200, "one signs in everywhere");

        assert_eq!(
            app.post("/api/users/logout", json!({ "token": ada.credential() })).await.status,
            200
        );

        there.get(&me).await.problem(401, "unauthenticated");
        assert!(other.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn other_services_look_users_up_with_a_key() {
    run(async |app| {
        let ada = app.person("ada").await;
        let path = format!("/internal/user/{}", ada.id);
        let key = app.key(&[revwallet::auth::Scope::UsersRead]).await;

        app.internal.get(&path).await.problem(401, "unauthenticated");
        app.internal.with(ada.credential()).get(&path).await.problem(403, "forbidden");
        let seen = app.internal.with(key.credential()).get(&path).await;
        assert_eq!((seen.status, &seen.json()["username"]), (200, &json!("ada")), "{}", seen.text);
        assert!(!seen.text.contains("password") && !seen.text.contains("argon"));
        app.get(&path).await.problem(404, "not-found");
    })
    .await;
}

/// The first admin comes from the command line.
fn make_admin(app: &TestApp, name: &str) {
    let url = format!("--database-url={}", app.database.url);
    let words = ["user", "role", name, "admin", "--log-filter=warn", &url];
    let output = crate::harness::program::command(&words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn an_admin_may_do_everything() {
    run_with(&["--access=closed"], async |app| {
        let (root, ada) = (app.person("root").await, app.person("ada").await);
        let wallet = ada.post("/wallet", json!({ "owner": "ada", "currency": "EUR" })).await.json()
            ["id"]
            .clone();
        let look = format!("/wallet/{}", wallet.as_str().unwrap());
        root.get(&look).await.problem(403, "forbidden");

        make_admin(app, "root");

        assert_eq!(root.get(&look).await.status, 200);
        let fund = root.post("/wallet/deposit", json!({ "id": wallet, "amount": 5 })).await;
        assert_eq!(fund.status, 200, "{}", fund.text);
        assert_eq!(root.get("/wallet").await.json().as_array().unwrap().len(), 1);
        assert_eq!(root.get(&format!("/api/users/{}", ada.id)).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn whoever_was_signed_out_meanwhile_changes_nothing() {
    run_with(&["--password-memory=131072", "--password-passes=4"], async |app| {
        let ada = app.person("ada").await;
        let thief = sign_in(app, "ada", &ada.password).await;

        // It waits for its hash, and meanwhile its session ends.
        let body = json!({ "password": "planted by a thief" });
        let path = format!("/api/users/{}", ada.id);
        let change = thief.send(thief.request(Method::PUT, &path).json(&body));
        let out = async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            app.post("/api/users/logout", json!({ "token": thief.credential() })).await
        };
        let (changed, out) = tokio::join!(change, out);

        assert_eq!(out.status, 200);
        changed.problem(401, "unauthenticated");
        assert_eq!(ada.get(&path).await.status, 200, "the owner's session stays");
        sign_in(app, "ada", &ada.password).await;
    })
    .await;
}

#[tokio::test]
async fn names_are_not_tried_out_by_changing_a_profile() {
    run(async |app| {
        let ada = app.person("ada").await;
        app.person("bob").await;
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
async fn two_changes_at_once_both_count() {
    run(async |app| {
        let ada = app.person("ada").await;
        let (first, second) = tokio::join!(
            update(&ada, &ada.id, json!({ "firstName": "Ada" })),
            update(&ada, &ada.id, json!({ "lastName": "Lovelace" })),
        );
        assert_eq!((first.status, second.status), (200, 200));
        let seen = ada.get(&format!("/api/users/{}", ada.id)).await.json();
        assert_eq!((&seen["firstName"], &seen["lastName"]), (&json!("Ada"), &json!("Lovelace")));
    })
    .await;
}

#[tokio::test]
async fn a_freeze_is_lifted_by_the_operator_only() {
    run(async |app| {
        let ada = app.person("ada").await;
        let opened = ada.post("/wallet", json!({ "owner": "ada", "currency": "EUR" })).await.json();
        let path = format!("/wallet/{}", opened["id"].as_str().unwrap());
        let freeze = async |who: &crate::harness::Client, freeze: bool| {
            who.send(who.request(Method::PATCH, &path).json(&json!({ "freeze": freeze }))).await
        };
        let key = app.key(&[revwallet::auth::Scope::WalletWrite]).await;

        assert_eq!(freeze(&ada, true).await.status, 200, "one may freeze what is one's own");
        freeze(&ada, false).await.problem(403, "forbidden");
        assert_eq!(freeze(&key, false).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn where_nobody_funds_themselves_no_detour_leads_there() {
    run_with(&["--access=open", "--self-service-funding=false"], async |app| {
        let opened = app.post("/wallet", json!({ "owner": "x", "currency": "EUR" })).await;
        assert_eq!(opened.status, 201, "an empty one");
        let id = opened.json()["id"].clone();
        app.post("/wallet/deposit", json!({ "id": id, "amount": 5 }))
            .await
            .problem(401, "unauthenticated");
        let funded = json!({ "owner": "x", "currency": "EUR", "initial_balance": 5 });
        app.post("/wallet", funded).await.problem(401, "unauthenticated");
    })
    .await;
}
