//! Guests: players without a credential, and users without a password.

use reqwest::Method;
use revwallet::auth::Scope;
use serde_json::json;

use super::{balance, cents, deposit};
use crate::harness::users::sign_in;
use crate::harness::{run, run_with};

#[tokio::test]
async fn a_guest_begins_with_the_first_deposit() {
    run(async |app| {
        balance(app, "7").await.problem(404, "user-not-found");
        let early = app.post("/api/wallet/withdraw", cents("7", 1)).await;
        early.problem(404, "user-not-found");
        balance(app, "7").await.problem(404, "user-not-found");

        assert_eq!(deposit(app, "7", 100).await, 100);

        // The balance of a guest is public.
        let user = app.user("ada").await;
        for client in [&**app, &user.client] {
            assert_eq!(balance(client, "7").await.json()["balance"], 100);
        }
        let withdrawn = app.post("/api/wallet/withdraw", cents("7", 100)).await;
        assert_eq!(withdrawn.json()["balance"], 0);
        let refused = app.post("/api/wallet/withdraw", cents("7", 1)).await;
        refused.problem(422, "insufficient-funds");
        balance(app, &"x".repeat(65)).await.problem(404, "not-found");
        assert_eq!(balance(app, "a%2Fb").await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn registration_never_draws_a_number_that_a_guest_holds() {
    run(async |app| {
        let first: i64 = app.user("ada").await.id.parse().unwrap();
        let held: Vec<i64> = (first + 1..=first + 20).collect();
        for id in &held {
            deposit(app, &id.to_string(), 5).await;
        }

        let bob = app.user("bob").await;

        let number: i64 = bob.id.parse().unwrap();
        assert!(number > first + 20, "{number}");
        assert_eq!(balance(&bob, &bob.id).await.json()["balance"], 0);
        // The number of a user cannot become a guest's.
        app.post("/api/wallet/deposit", cents(&bob.id, 1)).await.problem(401, "unauthenticated");
        for id in held {
            assert_eq!(balance(app, &id.to_string()).await.json()["balance"], 5);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_and_registrations_at_once_never_share_a_number() {
    run(async |app| {
        let first: i64 = app.user("ada").await.id.parse().unwrap();
        let guests = (first + 1..first + 30).map(async |id| {
            app.post("/api/wallet/deposit", cents(&id.to_string(), 1)).await.status
        });
        let users = (0..15).map(async |n| {
            let body = json!({ "email": format!("u{n}@example.com"), "firstName": "A",
                "lastName": "B", "age": 30 });
            let created = app.post("/api/users", body).await;
            assert_eq!(created.status, 201, "{}", created.text);
            created.json()["id"].as_str().unwrap().to_owned()
        });
        let (guests, users) = tokio::join!(
            futures_util::future::join_all(guests),
            futures_util::future::join_all(users)
        );

        assert!(guests.iter().all(|status| *status == 200), "{guests:?}");
        let mut db = app.database.connect().await;
        let (users_found, guests_found): (i64, i64) =
            sqlx::query_as("select count(app_user), count(*) - count(app_user) from player")
                .fetch_one(&mut db)
                .await
                .unwrap();
        // A deposit to a number that a registration took first belongs to that user.
        let taken =
            users.iter().filter(|id| (1..30).contains(&(id.parse::<i64>().unwrap() - first)));
        let taken = i64::try_from(taken.count()).unwrap();
        // The house is a user, too.
        assert_eq!((users_found, guests_found), (17, 29 - taken));
    })
    .await;
}

#[tokio::test]
async fn a_key_of_one_guest_is_not_that_of_another() {
    run(async |app| {
        for guest in ["ada", "bob"] {
            let response = app.post_with_key("/api/wallet/deposit", "k", cents(guest, 100)).await;
            assert_eq!((response.status, response.header("idempotent-replayed")), (200, ""));
        }
        let again = app.post_with_key("/api/wallet/deposit", "k", cents("bob", 100)).await;
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(balance(app, "bob").await.json()["balance"], 100);
    })
    .await;
}

#[tokio::test]
async fn there_are_no_guests_where_access_is_closed() {
    run_with(&["--access=closed"], async |app| {
        let user = app.user("ada").await;
        let admin = app.api_key(&[Scope::Admin]).await;
        for path in ["/api/wallet/deposit", "/api/wallet/withdraw"] {
            app.post(path, cents("guest", 1)).await.problem(401, "unauthenticated");
            admin.post(path, cents("guest", 1)).await.problem(404, "user-not-found");
            user.post(path, cents("guest", 1)).await.problem(403, "forbidden");
        }
        balance(app, "guest").await.problem(401, "unauthenticated");
        balance(&admin, "guest").await.problem(404, "user-not-found");
        balance(&user, "guest").await.problem(403, "forbidden");
        // A guest from before access was closed.
        app.database.execute("insert into player (id) values ('guest')").await;
        balance(&admin, "guest").await.problem(404, "user-not-found");
        let refused = admin.post("/api/wallet/deposit", cents("guest", 1)).await;
        refused.problem(404, "user-not-found");

        user.post("/api/wallet/deposit", cents(&user.id, 1)).await.problem(403, "forbidden");
        assert_eq!(deposit(&admin, &user.id, 9).await, 9);
        assert_eq!(balance(&user, &user.id).await.json()["balance"], 9);
        let body =
            json!({ "email": "b@example.com", "firstName": "A", "lastName": "B", "age": 30 });
        let problem = app.post("/api/users", body).await.problem(400, "invalid-profile");
        assert_eq!(problem["errors"][0]["pointer"], "/password");
    })
    .await;
}

#[tokio::test]
async fn a_user_without_a_password_is_a_guest_until_an_admin_sets_one() {
    run(async |app| {
        let body =
            json!({ "email": "ada@example.com", "firstName": "Ada", "lastName": "L", "age": 36 });
        let created = app.post_with_key("/api/users", "k", body.clone()).await;
        assert_eq!(created.status, 201, "{}", created.text);
        let id = created.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(created.json(), json!({ "id": id, "email": "ada@example.com" }));
        let again = app.post_with_key("/api/users", "k", body.clone()).await;
        assert_eq!((again.json(), again.header("idempotent-replayed")), (created.json(), "true"));
        let mut with_password = body.clone();
        with_password["password"] = json!("test-secret of ada!");
        let other = app.post_with_key("/api/users", "k", with_password).await;
        other.problem(422, "idempotency-key-reused");

        assert_eq!(balance(app, &id).await.json()["balance"], 0);
        assert_eq!(deposit(app, &id, 500).await, 500);
        let login = json!({ "email": "ada@example.com", "password": "test-secret of ada!" });
        app.post("/api/users/login", login).await.problem(401, "invalid-credentials");
        // The e-mail address is not reserved.
        assert_eq!(app.post("/api/users", body).await.status, 201);

        let admin = app.api_key(&[Scope::Admin]).await;
        let change = json!({ "username": "ada", "password": "test-secret of ada!" });
        let change = admin.request(Method::PUT, &format!("/api/users/{id}")).json(&change);
        let changed = admin.send(change).await;
        assert_eq!(changed.status, 200, "{}", changed.text);

        app.post("/api/wallet/withdraw", cents(&id, 1)).await.problem(401, "unauthenticated");
        balance(app, &id).await.problem(401, "unauthenticated");
        let ada = sign_in(app, "ada", "test-secret of ada!").await;
        let withdrawn = ada.post("/api/wallet/withdraw", cents(&id, 100)).await;
        assert_eq!(withdrawn.json()["balance"], 400);
        assert_eq!(ada.get("/wallet").await.json().as_array().unwrap().len(), 1);
        // Now the address is reserved, also for those who have it without a password.
        let taken =
            json!({ "username": "eve", "email": "ada@example.com", "password": "test-secret of eve!" });
        let taken = app.post("/api/users/register", taken).await.problem(400, "invalid-profile");
        assert_eq!(taken["errors"][0]["pointer"], "/email");
    })
    .await;
}

#[tokio::test]
async fn the_wallet_of_a_user_without_a_password_has_no_other_door() {
    run(async |app| {
        let body =
            json!({ "email": "ada@example.com", "firstName": "Ada", "lastName": "L", "age": 36 });
        let id = app.post("/api/users", body).await.json()["id"].as_str().unwrap().to_owned();
        deposit(app, &id, 500).await;

        assert_eq!(app.get("/wallet").await.json(), json!([]));
        let shop = app.api_key(&[Scope::WalletRead]).await;
        let wallets = shop.get("/wallet").await.json();
        let wallet = wallets[0]["id"].as_str().unwrap();
        let body = json!({ "id": wallet, "amount": "1.00" });
        app.post("/wallet/withdraw", body).await.problem(401, "unauthenticated");
    })
    .await;
}
