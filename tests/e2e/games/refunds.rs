//! Refunds: money, share, fee and tax go back once, and the game goes.

use revwallet::auth::Scope;
use serde_json::json;

use super::{
    accounts, add, buy, buyer, cents, change, delete, next_entitlement, publisher, refund, titles,
};
use crate::harness::{run, run_with};

#[tokio::test]
async fn a_refund_reverses_share_fee_and_tax_once() {
    run_with(&["--tax-rates=EUR=19"], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "30").await;
        let id = add(&store, "Alpha", "19.99", json!({ "publisher": nova, "copies": 1 })).await;
        let (ada, bob) = (buyer(app, "ada", 2_000).await, buyer(app, "bob", 2_000).await);
        let bought = buy(&ada, id, json!({})).await.json();
        buy(&bob, id, json!({})).await.problem(409, "sold-out");

        let path = format!("/api/games/{id}/refund");
        let refunds = (0..8).map(|_| ada.post_with_key(&path, "k", json!({})));
        let refunded = futures_util::future::join_all(refunds).await;

        for answer in &refunded {
            assert_eq!((answer.status, &answer.text), (200, &refunded[0].text));
        }
        let body = refunded[0].json();
        assert_eq!((&body["refunded"], &body["currency"]), (&json!(19.99), &json!("EUR")));
        let transfer = body["transferId"].as_str().unwrap();
        let found = ada.get(&format!("/wallet/transfer/{transfer}")).await.json();
        assert_eq!((&found["kind"], &found["linked"]), (&json!("refund"), &bought["transferId"]));
        assert_eq!(accounts(app, &nova).await, [0, 0, 0]);
        assert_eq!((cents(&ada).await, titles(&ada).await.len()), (2_000, 0));
        refund(&ada, id, json!({})).await.problem(409, "refund-refused");
        assert_eq!(buy(&bob, id, json!({})).await.status, 201, "the copy is back");
        assert_eq!(app.get(&format!("/api/games/{id}")).await.json()["limited"], 0);
        assert_eq!(buy(&ada, id, json!({})).await.problem(409, "sold-out")["title"], "Sold out");
        let metrics = app.internal.get("/metrics").await.text;
        assert!(metrics.contains("wallet_store_refunds_total 1\n"));
    })
    .await;
}

#[tokio::test]
async fn concurrent_refunds_without_a_key_return_the_money_once() {
    run(async |app| {
        let id = add(app, "Alpha", "10", json!({})).await;
        let ada = buyer(app, "ada", 1_000).await;
        buy(&ada, id, json!({})).await;

        let refunds =
            futures_util::future::join_all((0..8).map(|_| refund(&ada, id, json!({})))).await;

        assert_eq!(refunds.iter().filter(|answer| answer.status == 200).count(), 1);
        assert_eq!(cents(&ada).await, 1_000);
    })
    .await;
}

#[tokio::test]
async fn a_refund_is_refused_with_the_reason() {
    run_with(&["--refund-window=1s"], async |app| {
        let id = add(app, "Alpha", "10", json!({})).await;
        let (ada, bob) = (buyer(app, "ada", 2_000).await, app.user("bob").await);
        let detail = async |user: &crate::harness::users::User, body| {
            refund(user, id, body).await.problem(409, "refund-refused")["detail"].clone()
        };
        assert_eq!(detail(&ada, json!({})).await, "the user does not own this game");
        buy(&ada, id, json!({ "gift_to": bob.id })).await;
        assert_eq!(detail(&bob, json!({})).await, "a gift can be refunded by its buyer only");
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        let gift = json!({ "gift_to": bob.id });
        assert_eq!(detail(&ada, gift).await, "the refund window of this purchase has ended");
        assert_eq!((cents(&ada).await, titles(&bob).await.len()), (1_000, 1));
        app.post(&format!("/api/games/{id}/refund"), json!({}))
            .await
            .problem(401, "unauthenticated");
    })
    .await;
}

#[tokio::test]
async fn a_gift_goes_back_to_its_buyer() {
    run(async |app| {
        let id = add(app, "Alpha", "10", json!({})).await;
        let (ada, bob) = (buyer(app, "ada", 1_000).await, app.user("bob").await);
        let mut socket = bob.socket().await;
        socket.subscribe("game_updates").await;
        buy(&ada, id, json!({ "gift_to": bob.id })).await;

        let refunded = refund(&ada, id, json!({ "gift_to": bob.id })).await;

        assert_eq!(refunded.status, 200, "{}", refunded.text);
        assert_eq!((cents(&ada).await, titles(&bob).await.len()), (1_000, 0));
        for kind in ["entitlement.granted", "entitlement.revoked"] {
            assert_eq!(next_entitlement(&mut socket).await["type"], kind);
        }
    })
    .await;
}

#[tokio::test]
async fn downloadable_content_goes_with_its_base() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "10").await;
        let of = json!({ "publisher": nova });
        let base = add(&store, "Base", "10", of).await;
        let more = json!({ "publisher": nova, "base": base });
        let own = add(&store, "Own", "3", more.clone()).await;
        let free = add(&store, "Free", "0", more.clone()).await;
        let gift = add(&store, "Gift", "2", more).await;
        let (ada, bob) = (buyer(app, "ada", 2_000).await, buyer(app, "bob", 1_000).await);
        for game in [base, own, free] {
            assert_eq!(buy(&ada, game, json!({})).await.status, 201);
        }
        assert_eq!(buy(&bob, gift, json!({ "gift_to": ada.id })).await.status, 201);

        let refunded = refund(&ada, base, json!({})).await;

        assert_eq!(refunded.json()["refunded"], 13.0, "{}", refunded.text);
        assert_eq!((cents(&ada).await, titles(&ada).await.len()), (2_000, 0));
        assert_eq!(cents(&bob).await, 800, "what another user gave is not returned");
        assert_eq!(accounts(app, &nova).await, [20, 0, 180]);
        assert_eq!(buy(&ada, own, json!({})).await.status, 409);
        // Content that went without money can be had again.
        assert_eq!(buy(&ada, base, json!({})).await.status, 201);
        assert_eq!(buy(&ada, gift, json!({})).await.status, 201);
    })
    .await;
}

#[tokio::test]
async fn a_gift_stays_while_its_owner_has_paid_for_content() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let base = add(app, "Base", "5", json!({})).await;
        let more = add(&store, "More", "3", json!({ "base": base, "copies": 1 })).await;
        let (ada, bob) = (buyer(app, "ada", 300).await, buyer(app, "bob", 500).await);
        buy(&bob, base, json!({ "gift_to": ada.id })).await;
        assert_eq!(buy(&ada, more, json!({})).await.status, 201);
        let gift = json!({ "gift_to": ada.id });

        let refused = refund(&bob, base, gift.clone()).await.problem(409, "refund-refused");

        assert_eq!(refused["detail"], "another user paid for downloadable content of the gift");
        assert_eq!(titles(&ada).await.len(), 2);
        assert_eq!(refund(&ada, more, json!({})).await.status, 200);
        assert_eq!(refund(&bob, base, gift).await.status, 200);
        assert_eq!((cents(&ada).await, cents(&bob).await), (300, 500));
        assert_eq!(app.get(&format!("/api/games/{more}")).await.json()["limited"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_free_refund_is_made_once_per_key() {
    run(async |app| {
        let (free, other) =
            (add(app, "Free", "0", json!({})).await, add(app, "B", "0", json!({})).await);
        let ada = app.user("ada").await;
        for game in [free, other] {
            buy(&ada, game, json!({})).await;
        }
        let path = format!("/api/games/{free}/refund");
        let first = ada.post_with_key(&path, "k", json!({})).await;
        assert_eq!(first.status, 200, "{}", first.text);
        buy(&ada, free, json!({})).await;
        let again = ada.post_with_key(&path, "k", json!({})).await;
        assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text));
        assert_eq!(titles(&ada).await.len(), 2, "the second claim stays");
        let reused = ada.post_with_key(&format!("/api/games/{other}/refund"), "k", json!({})).await;
        reused.problem(422, "idempotency-key-reused");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_belongs_to_one_refund_whether_paid_or_free() {
    run(async |app| {
        let ada = buyer(app, "ada", 10_000).await;
        for round in 0..5 {
            let free = add(app, &format!("F{round}"), "0", json!({})).await;
            let paid = add(app, &format!("P{round}"), "1", json!({})).await;
            let other = add(app, &format!("O{round}"), "0", json!({})).await;
            for game in [free, paid, other] {
                assert_eq!(buy(&ada, game, json!({})).await.status, 201);
            }
            let key = format!("k{round}");
            let refunds = [free, paid, other].map(async |game| {
                ada.post_with_key(&format!("/api/games/{game}/refund"), &key, json!({})).await
            });

            let answers = futures_util::future::join_all(refunds).await;

            assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
            for answer in answers.iter().filter(|answer| answer.status != 200) {
                answer.problem(422, "idempotency-key-reused");
            }
        }
        assert_eq!(titles(&ada).await.len(), 10);
    })
    .await;
}

#[tokio::test]
async fn a_refund_of_content_leaves_the_base() {
    run(async |app| {
        let base = add(app, "Base", "0", json!({})).await;
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let more = add(&store, "More", "3", json!({ "base": base })).await;
        let ada = buyer(app, "ada", 300).await;
        buy(&ada, base, json!({})).await;
        buy(&ada, more, json!({})).await;

        assert_eq!(refund(&ada, more, json!({})).await.status, 200);
        assert_eq!((cents(&ada).await, titles(&ada).await), (300, vec!["Base".to_owned()]));
        assert_eq!(buy(&ada, more, json!({})).await.status, 201);
        let all = refund(&ada, base, json!({})).await;
        assert_eq!((all.status, &all.json()["refunded"]), (200, &json!(3.0)), "{}", all.text);
    })
    .await;
}

#[tokio::test]
async fn a_refund_leaves_a_publisher_in_debt_that_later_sales_settle() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "10").await;
        let id = add(&store, "Alpha", "10", json!({ "publisher": nova })).await;
        let (ada, bob) = (buyer(app, "ada", 1_000).await, buyer(app, "bob", 1_000).await);
        buy(&ada, id, json!({})).await;
        // The share leaves the account as a payout would take it.
        let eur = revwallet::ledger::currency::Currency::new("EUR", 2).unwrap();
        let party = nova.parse().unwrap();
        let payable = revwallet::ledger::account::AccountId::payable(party, eur).unwrap();
        let world = revwallet::ledger::account::AccountId::system(
            revwallet::ledger::account::SystemRole::World,
            eur,
        );
        let action = revwallet::ledger::transfer::Action::Move {
            kind: revwallet::ledger::transfer::TransferKind::Payout,
            debit: payable,
            credit: world,
            amount: revwallet::ledger::money::Minor(900),
        };
        let posting = revwallet::ledger::transfer::Posting {
            legs: vec![action.into()],
            ..Default::default()
        };
        app.app().wallets.ledger().post(posting).await.unwrap();

        assert_eq!(refund(&ada, id, json!({})).await.status, 200);
        assert_eq!(accounts(app, &nova).await, [0, 0, -900]);
        assert_eq!(buy(&bob, id, json!({})).await.status, 201);
        assert_eq!(accounts(app, &nova).await, [100, 0, 0]);
    })
    .await;
}

#[tokio::test]
async fn money_of_a_closed_wallet_goes_to_the_next_one() {
    run(async |app| {
        let id = add(app, "Alpha", "10", json!({})).await;
        let ada = buyer(app, "ada", 1_000).await;
        buy(&ada, id, json!({})).await;
        let wallet = ada.get("/wallet").await.json()[0]["id"].as_str().unwrap().to_owned();
        let close = ada.request(reqwest::Method::DELETE, &format!("/wallet/{wallet}"));
        assert_eq!(ada.send(close).await.status, 204);

        refund(&ada, id, json!({})).await.problem(409, "wallet-closed");
        super::fund(app, &ada.id, 5).await;
        assert_eq!(refund(&ada, id, json!({})).await.status, 200);

        assert_eq!(cents(&ada).await, 1_005);
    })
    .await;
}

#[tokio::test]
async fn a_retired_game_can_be_refunded() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({ "copies": 3 })).await;
        let ada = buyer(app, "ada", 1_000).await;
        buy(&ada, id, json!({})).await;
        assert_eq!(delete(&store, id).await.status, 200);
        assert_eq!(refund(&ada, id, json!({})).await.status, 200);
        assert_eq!(change(&store, id, json!({ "state": "published" })).await.status, 200);
        assert_eq!(app.get(&format!("/api/games/{id}")).await.json()["limited"], 3);
    })
    .await;
}
