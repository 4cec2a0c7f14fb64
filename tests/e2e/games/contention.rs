//! Limited copies under contention: as many win as there are, and the money of the others never moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use revwallet::auth::Scope;
use serde_json::json;

use super::offers::crowd;
use super::{add, buy, buyer, cents, change, delete, refund, titles};
use crate::harness::program::{Folder, Program};
use crate::harness::users::User;
use crate::harness::{Client, eventually, run, run_with};

/// Lets a hundred users register at once.
const CROWD: &[&str] = &["--registrations-max=1000"];

/// Number of users who own at least one game; checks that each paid for exactly the games they own.
async fn winners(users: &[User], before: i64, price: i64) -> usize {
    let mut winners = 0;
    for user in users {
        let owned = i64::try_from(titles(user).await.len()).unwrap();
        assert_eq!(cents(user).await, before - owned * price, "user {}", user.id);
        winners += usize::from(owned > 0);
    }
    winners
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_buyers_share_37_copies_and_those_that_come_back() {
    run_with(CROWD, async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({ "copies": 37 })).await;
        let users = crowd(app, 100, 1_000).await;

        let answers = join_all(users.iter().map(|user| buy(user, id, json!({})))).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 37);
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.problem(409, "sold-out");
        }
        assert_eq!(winners(&users, 1_000, 1_000).await, 37);
        let owners = users.iter().zip(&answers).filter(|(_, answer)| answer.status == 201);
        let returned = join_all(owners.take(5).map(|(user, _)| refund(user, id, json!({})))).await;
        assert!(returned.iter().all(|answer| answer.status == 200));
        assert_eq!(app.get(&format!("/api/games/{id}")).await.json()["limited"], 5);

        let answers = join_all(users.iter().map(|user| buy(user, id, json!({})))).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 5);
        assert_eq!(winners(&users, 1_000, 1_000).await, 37);
        assert_eq!(app.get(&format!("/api/games/{id}")).await.json()["limited"], 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_free_and_a_paid_game_that_are_bought_at_once_with_one_key_are_one_purchase() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (mut free, mut paid) = (Vec::new(), Vec::new());
        for number in 0..20 {
            free.push(add(&store, &format!("Free {number}"), "0", json!({})).await);
            paid.push(add(&store, &format!("Paid {number}"), "1", json!({})).await);
        }
        let (ada, eve) = (buyer(app, "ada", 2_000).await, buyer(app, "eve", 2_000).await);
        // A quote of each paid game is cached, so that its posting does not wait for a read.
        for game in &paid {
            assert_eq!(buy(&eve, *game, json!({})).await.status, 201);
        }
        let purchase = async |game: i64, key: &str| {
            ada.post_with_key(&format!("/api/games/{game}/purchase"), key, json!({})).await
        };

        let mut charged = 0;
        for (number, (free, paid)) in free.into_iter().zip(paid).enumerate() {
            let key = format!("k{number}");
            let (free, paid) = tokio::join!(purchase(free, &key), purchase(paid, &key));
            let (made, refused) = if paid.status == 201 { (&paid, &free) } else { (&free, &paid) };
            assert_eq!(made.status, 201, "{}", made.text);
            refused.problem(422, "idempotency-key-reused");
            charged += i64::from(paid.status == 201);
        }

        assert_eq!(cents(&ada).await, 2_000 - 100 * charged);
        assert_eq!(titles(&ada).await.len(), 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_shared_by_paid_and_free_claims_and_by_refunds_at_once() {
    run_with(CROWD, async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "0", json!({ "copies": 20 })).await;
        let users = crowd(app, 60, 1_000).await;
        let free = join_all(users[..10].iter().map(|user| buy(user, id, json!({})))).await;
        assert!(free.iter().all(|answer| answer.status == 201));
        let paid = json!({ "price": "0.50" });

        // The price changes between free and paid while everyone buys, and ten give their copies back.
        let flips = async {
            for _ in 0..10 {
                change(&store, id, paid.clone()).await;
                change(&store, id, json!({ "price": 0 })).await;
            }
        };
        let buys = join_all(users[10..].iter().map(|user| buy(user, id, json!({}))));
        let refunds = join_all(users[..10].iter().map(|user| refund(user, id, json!({}))));
        let (bought, refunded, ()) = tokio::join!(buys, refunds, flips);

        assert!(refunded.iter().all(|answer| answer.status == 200));
        for answer in bought.iter().filter(|answer| answer.status != 201) {
            answer.problem(409, "sold-out");
        }
        let won = bought.iter().filter(|answer| answer.status == 201).count();
        let left = app.get(&format!("/api/games/{id}")).await.json()["limited"].as_u64().unwrap();
        assert_eq!(u64::try_from(won).unwrap() + left, 20);
        // A buyer who heard of no copy came before the ten were back.
        assert!(won >= 10, "{won}");
        let charged = bought
            .iter()
            .filter(|answer| answer.status == 201 && answer.json()["transferId"].is_string());
        let charged = i64::try_from(charged.count()).unwrap();
        let mut sum = 0;
        for user in &users {
            sum += cents(user).await;
        }
        assert_eq!(sum, 60 * 1_000 - 50 * charged);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_charged_once_for_a_game() {
    run(async |app| {
        let id = add(app, "Alpha", "1", json!({})).await;
        let ada = super::buyer(app, "ada", 1_000).await;

        let answers = join_all((0..20).map(|_| buy(&ada, id, json!({})))).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.problem(409, "game-owned");
        }
        assert_eq!(cents(&ada).await, 900);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_game_is_deleted_or_sold_but_never_both() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let users = crowd(app, 4, 1_000).await;
        for round in 0..10 {
            let id = add(&store, &format!("G{round}"), "0.10", json!({})).await;
            let buys = join_all(users.iter().map(|user| buy(user, id, json!({}))));
            let (answers, deleted) = tokio::join!(buys, delete(&store, id));

            assert_eq!(deleted.status, 200);
            let sold = answers.iter().any(|answer| answer.status == 201);
            let after = app.get(&format!("/api/games/{id}")).await;
            if sold {
                assert_eq!(after.json()["state"], "retired");
            } else {
                assert_eq!(after.status, 404);
            }
        }
        winners(&users, 1_000, 10).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_never_owned_without_its_base() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let base = add(app, "Base", "1", json!({})).await;
        let paid = add(&store, "Paid", "1", json!({ "base": base })).await;
        let free = add(&store, "Free", "0", json!({ "base": base })).await;
        let users = crowd(app, 8, 1_000).await;

        join_all(users.iter().map(async |user| {
            for _ in 0..5 {
                buy(user, base, json!({})).await;
                tokio::join!(
                    buy(user, paid, json!({})),
                    buy(user, free, json!({})),
                    refund(user, base, json!({}))
                );
                let owned = titles(user).await;
                assert!(owned.is_empty() || owned.contains(&"Base".to_owned()), "{owned:?}");
            }
        }))
        .await;

        for user in &users {
            let owned = titles(user).await;
            let paid = owned.iter().filter(|title| *title != "Free").count();
            assert_eq!(cents(user).await, 1_000 - 100 * i64::try_from(paid).unwrap(), "{owned:?}");
        }
    })
    .await;
}

/// Registers users on a program and returns clients with a balance.
async fn users_of(program: &Program, size: usize) -> Vec<(String, Client)> {
    let mut users = Vec::new();
    for n in 0..size {
        let (name, password) = (format!("user{n}"), format!("test-secret number {n}!"));
        let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": password });
        let registered = program.public.post("/api/users/register", body).await.json();
        let id = registered["id"].as_str().unwrap().to_owned();
        let client = crate::harness::users::sign_in(&program.public, &name, &password).await;
        let body = json!({ "userId": id, "amount": 100_000 });
        let funded = client.post("/api/wallet/deposit", body).await;
        assert_eq!(funded.status, 200, "{}", funded.text);
        users.push((id, client));
    }
    users
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_sell_the_last_copies_once() {
    let folder = Folder::new();
    let settings = [&*folder.setting(), "--password-memory=512", "--password-passes=1"];
    let (one, two) = (Program::start(&settings).await, Program::start(&settings).await);
    let users = users_of(&one, 12).await;
    let other = |client: &Client| Client::with_credential(&two.public, client.credential());
    let created = crate::harness::program::command(&[
        &folder.setting(),
        "api-key",
        "create",
        "--name=store",
        "--scope=games:write",
    ]);
    let key = tokio::process::Command::from(created).output().await.unwrap();
    let key = String::from_utf8(key.stdout).unwrap();
    let key = key.split_whitespace().find(|word| word.starts_with("rwk_")).unwrap();
    let store = one.public.with_credential(key);
    let mut owned = vec![0_i64; users.len()];
    for round in 0..5 {
        let id = add(&store, &format!("G{round}"), "1", json!({ "copies": 7 })).await;
        let buys = users.iter().map(async |(_, client)| {
            // Each buyer asks both processes: one charge at most.
            let second = other(client);
            let attempts =
                join_all([client, &second].map(|client| buy(client, id, json!({})))).await;
            for refused in attempts.iter().filter(|answer| answer.status != 201) {
                assert_eq!(refused.status, 409, "{}", refused.text);
            }
            attempts.iter().filter(|answer| answer.status == 201).count()
        });
        let bought = join_all(buys).await;
        assert!(bought.iter().all(|times| *times <= 1), "{bought:?}");
        assert_eq!(bought.iter().sum::<usize>(), 7, "{bought:?}");
        for (owned, times) in owned.iter_mut().zip(bought) {
            *owned += i64::try_from(times).unwrap();
        }
    }
    for ((id, client), owned) in users.iter().zip(owned) {
        let balance = client.get(&format!("/api/wallet/balance/{id}")).await.json();
        assert_eq!(balance["balance"], 100_000 - owned * 100);
    }
    for program in [one, two] {
        assert!(program.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_is_whole_or_absent_after_a_kill() {
    let folder = Folder::new();
    let settings = [&*folder.setting(), "--password-memory=512", "--password-passes=1"];
    let program = Program::start(&settings).await;
    let users = users_of(&program, 8).await;
    let mut games = Vec::new();
    for n in 0..60 {
        games.push(
            add(
                &program.public,
                &format!("G{n}"),
                if n % 4 == 0 { "0" } else { "2.50" },
                json!({}),
            )
            .await,
        );
    }
    let games = Arc::new(games);
    let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let buyers: Vec<_> = users
        .iter()
        .map(|(_, client)| {
            let (client, games) = (client.clone(), Arc::clone(&games));
            let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
            tokio::spawn(async move {
                for (n, game) in games.iter().enumerate() {
                    for operation in ["purchase", "refund"] {
                        if stop.load(Ordering::Relaxed) || operation == "refund" && n % 3 > 0 {
                            continue;
                        }
                        let path = format!("/api/games/{game}/{operation}");
                        let request = client.request(reqwest::Method::POST, &path).json(&json!({}));
                        let _unknown = Client::try_send(request).await;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    eventually("purchases run", async || done.load(Ordering::Relaxed) > 150).await;
    program.signal("KILL");
    stop.store(true, Ordering::Relaxed);
    for buyer in buyers {
        buyer.await.unwrap();
    }
    program.kill();

    let program = Program::start(&settings).await;
    for (id, client) in &users {
        let client = Client::with_credential(&program.public, client.credential());
        let library = client.get(&format!("/api/users/{id}/library?limit=1000")).await.json();
        let owned = library["games"].as_array().unwrap();
        let paid = owned.iter().filter(|game| {
            let number: usize = game["title"].as_str().unwrap()[1..].parse().unwrap();
            !number.is_multiple_of(4)
        });
        let spent = 250 * i64::try_from(paid.count()).unwrap();
        let balance = client.get(&format!("/api/wallet/balance/{id}")).await.json();
        assert_eq!(balance["balance"], 100_000 - spent, "user {id}");
    }
    assert!(program.stop().await.success());
}
