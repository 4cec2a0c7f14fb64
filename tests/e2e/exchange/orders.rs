//! Quotes and orders: their terms, lists, idempotency, prices that move, hot wallets that are short.

use std::time::Duration;

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::{
    balances, buy, fund_hot, hot_wallets, order, order_id, reaches, sell, set_price, step, texts,
    trader,
};
use crate::harness::{run, run_with};

#[tokio::test]
async fn an_order_shows_every_step_with_its_transfer() {
    run_with(&["--exchange-fee=1"], async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        let bought = reaches(&ada, id, "completed").await;

        assert_eq!(
            (&bought["side"], &bought["fee"], &bought["crypto_amount"], &bought["price"]),
            (&json!("buy"), &json!(0.3), &json!(2.97), &json!(10))
        );
        let names: Vec<&Value> =
            bought["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
        assert_eq!(names, ["hold", "exchange", "withdraw"]);
        for name in ["hold", "exchange", "withdraw"] {
            let step = step(&bought, name);
            assert_eq!((&step["state"], &step["attempts"]), (&json!("done"), &json!(1)), "{step}");
            assert!(step["transfer_id"].is_string() && step["ended_at"].is_string(), "{step}");
        }
        assert_eq!(balances(&ada).await, texts("70.00", "2.97000000"));
        assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));

        let id = order_id(&sell(&ada, json!({ "crypto_amount": 1.5 })).await);
        let sold = reaches(&ada, id, "completed").await;
        assert_eq!((&sold["fee"], &sold["fiat_amount"]), (&json!(0.15), &json!(14.85)));
        assert_eq!(balances(&ada).await, texts("84.85", "1.47000000"));
        assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
        let orders = ada.get(&format!("/exchange/orders/{}", ada.id)).await.json();
        let ids: Vec<i64> = orders
            .as_array()
            .unwrap()
            .iter()
            .map(|order| order["order_id"].as_i64().unwrap())
            .collect();
        assert_eq!(ids, [2, 1]);
        let page = ada.get(&format!("/exchange/orders/{}?limit=1&state=completed", ada.id)).await;
        assert!(page.header("link").contains("after=2"), "{}", page.header("link"));
        let failed = ada.get(&format!("/exchange/orders/{}?state=failed", ada.id)).await;
        assert_eq!(failed.text, "[]");
    })
    .await;
}

#[tokio::test]
async fn a_quote_locks_its_price_and_is_used_once() {
    run(async |app| {
        let (ada, bob) = (trader(app, "ada", 10_000).await, trader(app, "bob", 10_000).await);
        fund_hot(app, "EUR", "100").await;
        let quote = ada.post("/exchange/quote", json!({ "side": "buy", "fiat_amount": 30 })).await;
        let quote = quote.json();
        assert_eq!((&quote["price"], &quote["crypto_amount"]), (&json!(10), &json!(3.0)));
        set_price(app, "12").await;
        let id = &quote["quote_id"];

        buy(&bob, json!({ "quote_id": id })).await.problem(404, "not-found");
        sell(&ada, json!({ "quote_id": id })).await.problem(422, "invalid");
        buy(&ada, json!({ "quote_id": id, "fiat_amount": 31 })).await.problem(422, "invalid");
        let placed = order_id(&buy(&ada, json!({ "quote_id": id, "fiat_amount": 30 })).await);
        buy(&ada, json!({ "quote_id": id })).await.problem(409, "quote-ended");

        let bought = reaches(&ada, placed, "completed").await;
        assert_eq!((&bought["price"], &bought["quote_id"]), (&json!(10), id));
        assert_eq!(balances(&ada).await, texts("70.00", "3.00000000"));
        // The house has paid 36 for what it sold at 30.
        assert_eq!(hot_wallets(app).await, texts("94.00", "0.00000000"));
    })
    .await;
}

#[tokio::test]
async fn a_quote_expires() {
    run_with(&["--quote-lifetime=1ms"], async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let quote = ada.post("/exchange/quote", json!({ "side": "buy", "crypto_amount": 1 })).await;
        let id = quote.json()["quote_id"].clone();
        tokio::time::sleep(Duration::from_millis(5)).await;
        buy(&ada, json!({ "quote_id": id })).await.problem(409, "quote-ended");
        assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"));
    })
    .await;
}

#[tokio::test]
async fn a_quote_is_used_once_by_concurrent_requests() {
    run(async |app| {
        let ada = trader(app, "ada", 100_000).await;
        let quote = ada.post("/exchange/quote", json!({ "side": "buy", "fiat_amount": 10 })).await;
        let id = quote.json()["quote_id"].clone();
        let tries = (0..20).map(|_| buy(&ada, json!({ "quote_id": id })));
        let answers = futures_util::future::join_all(tries).await;
        for answer in &answers {
            assert!([200, 409].contains(&answer.status), "{}", answer.text);
        }
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        reaches(&ada, 1, "completed").await;
        assert_eq!(balances(&ada).await, texts("990.00", "1.00000000"));
    })
    .await;
}

#[tokio::test]
async fn a_repeated_request_places_one_order() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let path = format!("/exchange/buy/{}", ada.id);
        let body = json!({ "fiat_amount": 30 });
        let first = ada.post_with_key(&path, "k", body.clone()).await;
        let id = order_id(&first);
        reaches(&ada, id, "completed").await;
        set_price(app, "20").await;
        let second = ada.post_with_key(&path, "k", body).await;
        assert_eq!(
            (second.text.as_str(), second.header("idempotent-replayed")),
            (first.text.as_str(), "true")
        );
        let other = ada.post_with_key(&path, "k", json!({ "fiat_amount": 31 })).await;
        other.problem(422, "idempotency-key-reused");

        let quote = ada.post("/exchange/quote", json!({ "side": "buy", "fiat_amount": 20 })).await;
        let body = json!({ "quote_id": quote.json()["quote_id"] });
        let first = ada.post_with_key(&path, "q", body.clone()).await;
        let second = ada.post_with_key(&path, "q", body).await;
        assert_eq!((second.status, order_id(&second)), (200, order_id(&first)));
        assert_eq!(second.header("idempotent-replayed"), "true");
        reaches(&ada, order_id(&first), "completed").await;
        assert_eq!(balances(&ada).await, texts("50.00", "4.00000000"));
    })
    .await;
}

#[tokio::test]
async fn bad_input_moves_nothing() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        for body in [
            json!({}),
            json!({ "fiat_amount": 1, "crypto_amount": 1 }),
            json!({ "fiat_amount": -1 }),
            json!({ "fiat_amount": 0 }),
            json!({ "fiat_amount": 0.001 }),
            json!({ "fiat_amount": "abc" }),
            json!({ "fiat_amount": 1e30 }),
            json!({ "crypto_amount": 0.000_000_001 }),
            json!({ "quote_id": "nonsense" }),
        ] {
            let refused = buy(&ada, body.clone()).await;
            assert_eq!(refused.status, 422, "{body}: {}", refused.text);
        }
        buy(&ada, json!({ "fiat_amount": "999999999" })).await.problem(422, "insufficient-funds");
        set_price(app, "0.0000001").await;
        sell(&ada, json!({ "crypto_amount": 0.000_000_01 })).await.problem(422, "order-limit");
        let unknown = json!({ "quote_id": "6f1c6f0e-7c1f-4d60-9a52-1c6d7f0a9b3e" });
        buy(&ada, unknown).await.problem(404, "not-found");
        app.get("/exchange/order/1").await.problem(401, "unauthenticated");
        assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"));
        assert_eq!(ada.get(&format!("/exchange/orders/{}", ada.id)).await.text, "[]");
    })
    .await;
}

#[tokio::test]
async fn an_order_waits_while_the_hot_wallet_is_short() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let quote = ada.post("/exchange/quote", json!({ "side": "buy", "fiat_amount": 30 })).await;
        set_price(app, "11").await;
        let id = order_id(&buy(&ada, json!({ "quote_id": quote.json()["quote_id"] })).await);
        crate::harness::eventually("the step waits", async || {
            let found = order(&ada, id).await;
            found["steps"].as_array().unwrap().len() > 1
                && step(&found, "exchange")["state"] == "waiting"
        })
        .await;
        let waiting = order(&ada, id).await;
        assert_eq!(
            (&waiting["state"], &waiting["reason"]),
            (&json!("processing"), &json!("the hot wallet is short"))
        );
        // The money stays held meanwhile.
        assert_eq!(balances(&ada).await, texts("70.00", "0.00000000"));
        fund_hot(app, "EUR", "3").await;
        reaches(&ada, id, "completed").await;
        assert_eq!(balances(&ada).await, texts("70.00", "3.00000000"));
        assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
    })
    .await;
}

#[tokio::test]
async fn an_order_whose_hot_wallet_stays_short_is_undone_at_its_deadline() {
    run_with(&["--order-deadline=500ms"], async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let quote = ada.post("/exchange/quote", json!({ "side": "buy", "fiat_amount": 30 })).await;
        set_price(app, "11").await;
        let id = order_id(&buy(&ada, json!({ "quote_id": quote.json()["quote_id"] })).await);
        let failed = reaches(&ada, id, "failed").await;
        assert_eq!(step(&failed, "exchange")["state"], "undone", "{failed}");
        assert_eq!(step(&failed, "hold")["state"], "undone", "{failed}");
        assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"));
        assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
    })
    .await;
}

#[tokio::test]
async fn money_that_an_order_holds_cannot_be_spent() {
    run(async |app| {
        let ada = trader(app, "ada", 3_000).await;
        app.database
            .execute("update simulated_outside set down_until = now() + interval '1 hour'")
            .await;
        buy(&ada, json!({ "fiat_amount": 30 })).await.problem(503, "price-unavailable");
        app.database.execute("update simulated_outside set down_until = null").await;
        super::fault(app, "exchange", "lost", 1).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        let withdraw = json!({ "userId": ada.id, "amount": 1 });
        let bank = app.api_key(&[Scope::WalletWrite]).await;
        bank.post("/api/wallet/withdraw", withdraw).await.problem(422, "insufficient-funds");
        reaches(&ada, id, "completed").await;
        super::assert_faults_happened(app).await;
    })
    .await;
}
