//! Purchases: what they charge, whom they pay, and when they are refused.

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::{accounts, add, buy, buyer, cents, change, fund, next_entitlement, publisher, titles};
use crate::harness::{run, run_with};

#[tokio::test]
async fn a_purchase_charges_the_buyer_and_pays_publisher_fee_and_tax() {
    run_with(&["--tax-rates=EUR=19,USD=8.25", "--store-fee=30"], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "30").await;
        let id = add(&store, "Alpha", "19.99", json!({ "publisher": nova })).await;
        let ada = buyer(app, "ada", 5_000).await;

        let bought = buy(&ada, id, json!({ "expected_price": "19.99" })).await;

        assert_eq!(bought.status, 201, "{}", bought.text);
        let transfer = bought.json()["transferId"].as_str().unwrap().to_owned();
        let expected = json!({
            "gameId": id, "userId": ada.id, "price": 19.99, "tax": 3.19, "currency": "EUR", "transferId": transfer,
        });
        assert_eq!(bought.json(), expected);
        assert_eq!(cents(&ada).await, 3_001);
        // 30 % of 16.80 are 5.04.
        assert_eq!(accounts(app, &nova).await, [504, 319, 1_999 - 504 - 319]);
        assert_eq!(titles(&ada).await, ["Alpha"]);
        let found = ada.get(&format!("/wallet/transfer/{transfer}")).await.json();
        assert_eq!(
            (&found["kind"], &found["amount"], &found["fee"]),
            (&json!("purchase"), &json!(19.99), &json!(0.0))
        );
        buy(&ada, id, json!({})).await.problem(409, "game-owned");
        assert_eq!(cents(&ada).await, 3_001);

        let house = add(&store, "House", "10", json!({})).await;
        assert_eq!(buy(&ada, house, json!({})).await.status, 201);
        assert_eq!(accounts(app, &nova).await, [504 + 1_000 - 160, 319 + 160, 1_176]);
        let metrics = app.internal.get("/metrics").await.text;
        for line in [
            r#"wallet_store_purchases_total{outcome="paid"} 2"#,
            r#"wallet_store_purchases_total{outcome="refused"} 1"#,
            r#"wallet_store_revenue_minor_units_total{currency="EUR"} 2999"#,
            r#"wallet_store_tax_minor_units_total{currency="EUR"} 479"#,
            r#"wallet_store_fees_minor_units_total{currency="EUR"} 504"#,
        ] {
            assert!(metrics.contains(line), "{line}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_purchase_is_refused_with_the_reason() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({})).await;
        let content = add(&store, "More", "1", json!({ "base": id })).await;
        let draft = add(&store, "Draft", "1", json!({ "state": "draft" })).await;
        let retired = add(&store, "Old", "1", json!({ "state": "retired" })).await;
        let ada = buyer(app, "ada", 500).await;

        app.post(&format!("/api/games/{id}/purchase"), json!({}))
            .await
            .problem(401, "unauthenticated");
        buy(&store, id, json!({})).await.problem(403, "forbidden");
        let poor = buy(&ada, id, json!({})).await.problem(422, "insufficient-funds");
        assert_eq!((&poor["available"], &poor["required"]), (&json!(5.0), &json!(10.0)));
        let other = buy(&ada, id, json!({ "currency": "USD" })).await;
        other.problem(409, "not-for-sale");
        buy(&ada, 99, json!({})).await.problem(404, "game-not-found");
        buy(&ada, draft, json!({})).await.problem(404, "game-not-found");
        buy(&ada, retired, json!({})).await.problem(409, "not-for-sale");
        buy(&ada, content, json!({})).await.problem(409, "base-game-missing");
        buy(&ada, id, json!({ "gift_to": 99 })).await.problem(404, "user-not-found");
        buy(&ada, id, json!({ "expected_price": "9.999" })).await.problem(422, "invalid");
        buy(&ada, id, json!({ "price": 1 })).await.problem(422, "invalid");
        change(&store, id, json!({ "price": "3.50" })).await;
        let changed = buy(&ada, id, json!({ "expected_price": 10 })).await;
        let problem = changed.problem(409, "price-changed");
        assert_eq!(problem["price"], 3.5);
        let bob = app.user("bob").await;
        let none = buy(&bob, id, json!({})).await.problem(422, "insufficient-funds");
        assert_eq!((&none["available"], &none["required"]), (&json!(0.0), &json!(3.5)));
        assert_eq!(cents(&ada).await, 500);
        assert_eq!(buy(&ada, id, json!({ "expected_price": problem["price"] })).await.status, 201);
        assert_eq!(buy(&ada, content, json!({})).await.status, 201);
        assert_eq!(titles(&ada).await, ["Alpha", "More"]);
    })
    .await;
}

#[tokio::test]
async fn a_gift_is_paid_by_the_buyer_and_owned_by_the_other() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({})).await;
        let (ada, bob) = (buyer(app, "ada", 2_500).await, app.user("bob").await);
        let (mut own, mut other) = (bob.socket().await, ada.socket().await);
        own.subscribe("game_updates").await;
        other.subscribe("game_updates").await;

        let gift = buy(&ada, id, json!({ "gift_to": bob.id })).await;

        assert_eq!((gift.status, &gift.json()["userId"]), (201, &json!(bob.id)));
        assert_eq!((cents(&ada).await, titles(&ada).await.len()), (1_500, 0));
        assert_eq!(titles(&bob).await, ["Alpha"]);
        buy(&ada, id, json!({ "gift_to": bob.id })).await.problem(409, "game-owned");
        let event = next_entitlement(&mut own).await;
        assert_eq!(
            (&event["type"], &event["data"]),
            (&json!("entitlement.granted"), &json!({ "gameId": id, "userId": bob.id }))
        );
        // The buyer does not hear of the game of the other user.
        assert_eq!(buy(&ada, id, json!({})).await.status, 201);
        assert_eq!(next_entitlement(&mut other).await["data"]["userId"], json!(ada.id));

        let path = format!("/api/games/{id}/owners/{}", bob.id);
        let reader = app.api_key(&[Scope::GamesRead]).await;
        for client in [&reader, &bob.client, &store] {
            assert_eq!(client.get(&path).await.json()["userId"], json!(bob.id));
        }
        ada.get(&path).await.problem(403, "forbidden");
        app.get(&path).await.problem(401, "unauthenticated");
        reader.get(&format!("/api/games/{id}/owners/99")).await.problem(404, "not-found");
        ada.get(&format!("/api/users/{}/library", bob.id)).await.problem(403, "forbidden");
    })
    .await;
}

#[tokio::test]
async fn a_purchase_is_made_once_per_key_also_when_the_money_or_the_game_is_gone() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({ "copies": 1 })).await;
        let free = add(&store, "Free", "0", json!({ "copies": 1 })).await;
        let ada = buyer(app, "ada", 1_000).await;
        for (game, charged) in [(id, true), (free, false)] {
            let path = format!("/api/games/{game}/purchase");
            let key = format!("k{game}");
            let first = ada.post_with_key(&path, &key, json!({})).await;
            assert_eq!(first.status, 201, "{}", first.text);
            assert_eq!(first.json()["transferId"].is_string(), charged);

            let again = ada.post_with_key(&path, &key, json!({})).await;
            assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"));
            assert_eq!(again.text, first.text);
            let other = ada.post_with_key(&path, &key, json!({ "expected_price": 1 })).await;
            other.problem(422, "idempotency-key-reused");
        }
        assert_eq!(cents(&ada).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_key_belongs_to_one_purchase_whether_paid_or_free() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let paid = add(&store, "Paid", "1", json!({})).await;
        let free = add(&store, "Free", "0", json!({})).await;
        let other = add(&store, "Other", "0", json!({})).await;
        let ada = buyer(app, "ada", 1_000).await;
        let purchase = async |game: i64, key: &str| {
            ada.post_with_key(&format!("/api/games/{game}/purchase"), key, json!({})).await
        };
        let first = purchase(free, "k").await;
        assert_eq!(first.status, 201);
        for game in [other, paid] {
            purchase(game, "k").await.problem(422, "idempotency-key-reused");
        }
        super::refund(&ada, free, json!({})).await;
        change(&store, free, json!({ "price": 10 })).await;
        let late = purchase(free, "k").await;
        assert_eq!(
            (late.status, late.header("idempotent-replayed"), &late.text),
            (201, "true", &first.text)
        );

        let first = purchase(paid, "p").await;
        super::refund(&ada, paid, json!({})).await;
        change(&store, paid, json!({ "price": 0 })).await;
        let late = purchase(paid, "p").await;
        assert_eq!(
            (late.status, late.header("idempotent-replayed"), &late.text),
            (201, "true", &first.text)
        );
        assert_eq!((cents(&ada).await, titles(&ada).await.len()), (1_000, 0));
    })
    .await;
}

#[tokio::test]
async fn a_gift_does_not_tell_what_others_own() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({})).await;
        let (ada, bob) = (app.user("ada").await, buyer(app, "bob", 1_000).await);
        buy(&bob, id, json!({})).await;
        let gift = |price: u32| json!({ "gift_to": bob.id, "expected_price": price });

        buy(&ada, id, gift(1)).await.problem(409, "price-changed");
        buy(&ada, id, gift(10)).await.problem(422, "insufficient-funds");
        fund(app, &ada.id, 1_000).await;
        buy(&ada, id, gift(10)).await.problem(409, "game-owned");
    })
    .await;
}

#[tokio::test]
async fn a_user_pays_in_the_currency_that_they_choose() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let further = json!({ "prices": [{ "currency": "JPY", "price": 1500 }] });
        let id = add(&store, "Alpha", "10", further).await;
        let ada = buyer(app, "ada", 1_000).await;
        let bank = app.api_key(&[Scope::WalletWrite]).await;
        let yen = json!({ "userId": ada.id, "amount": 2_000, "currency": "JPY" });
        bank.post("/api/wallet/deposit", yen).await;

        let bought = buy(&ada, id, json!({ "currency": "JPY", "expected_price": "1500" })).await;

        assert!(
            bought.text.contains(r#""price":1500,"tax":0,"currency":"JPY""#),
            "{}",
            bought.text
        );
        let balance = ada.get(&format!("/api/wallet/balance/{}?currency=JPY", ada.id)).await;
        assert_eq!(balance.json()["balance"], 500);
        assert_eq!(cents(&ada).await, 1_000);
    })
    .await;
}

#[tokio::test]
async fn a_fee_that_changed_holds_for_later_purchases() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "50").await;
        let id = add(&store, "Alpha", "10", json!({ "publisher": nova })).await;
        let (ada, bob) = (buyer(app, "ada", 1_000).await, buyer(app, "bob", 1_000).await);
        buy(&ada, id, json!({})).await;
        let admin = app.api_key(&[Scope::Admin]).await;
        let path = format!("/api/publishers/{nova}");
        let none = admin.request(reqwest::Method::PUT, &path).json(&json!({ "fee": 0 }));
        assert_eq!(admin.send(none).await.status, 200);

        assert_eq!(buy(&bob, id, json!({})).await.status, 201);

        assert_eq!(accounts(app, &nova).await, [500, 0, 1_500]);
    })
    .await;
}

#[tokio::test]
async fn a_library_has_pages() {
    run(async |app| {
        let ada = app.user("ada").await;
        for n in 0..3 {
            let id = add(app, &format!("G{n}"), "0", json!({})).await;
            assert_eq!(buy(&ada, id, json!({})).await.status, 201);
        }
        fund(app, &ada.id, 1).await;

        let first = ada.get(&format!("/api/users/{}/library?limit=2", ada.id)).await;

        let library: Value = first.json();
        assert_eq!(library["games"].as_array().unwrap().len(), 2);
        assert!(library["games"][0]["acquiredAt"].is_string());
        let next =
            first.header("link").trim_start_matches('<').split('>').next().unwrap().to_owned();
        let second = ada.get(&next).await;
        assert_eq!(second.json()["games"][0]["title"], "G2");
        assert!(second.header("book-position").starts_with("p1."));
    })
    .await;
}
