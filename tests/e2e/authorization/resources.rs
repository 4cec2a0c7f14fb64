//! Wallets and what belongs to them, for the calls of the authorization test.

use std::time::Duration;

use revwallet::auth::Caller;
use revwallet::idempotency_key::IdempotencyKey;
use revwallet::ids::{HoldId, TransferId, UserId, WalletId};
use revwallet::wallet::RequestMeta;
use revwallet::wallet::transfer::{Note, TransferRequest};
use revwallet::wallet::update::WalletChanges;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Client, TestApp};

/// A wallet with money, and related resources.
#[derive(Clone, Copy)]
pub struct Resources {
    pub wallet: WalletId,
    pub empty: WalletId,
    pub frozen: WalletId,
    pub transfer: TransferId,
    pub hold: HoldId,
    pub user: UserId,
    pub other: UserId,
}

/// Creates a guest and a wallet with money, an empty one, a frozen one, a transfer into the first, and a hold on it by the operator.
pub async fn resources(app: &TestApp, opener: &Client, [user, other]: [UserId; 2]) -> Resources {
    let wallets = &app.app().wallets;
    let (operator, key) = (Caller::operator(), IdempotencyKey::absent());
    let meta = RequestMeta { caller: &operator, key: &key, trace: Uuid::new_v4() };
    let mut opened = Vec::new();
    for _ in 0..3 {
        let body = json!({ "owner": "x", "currency": "EUR" });
        let response = opener.post("/wallet", body).await;
        assert_eq!(response.status, 201, "{}", response.text);
        opened.push(WalletId(response.json()["id"].as_str().unwrap().parse().unwrap()));
    }
    let guest = json!({ "userId": "guest", "amount": 100 });
    assert_eq!(app.post("/api/wallet/deposit", guest).await.status, 200);
    let [wallet, empty, frozen] = opened[..] else { unreachable!("three wallets were opened") };
    wallets.deposit(wallet, "100", Note::default(), meta).await.unwrap();
    wallets.deposit(empty, "10", Note::default(), meta).await.unwrap();
    let request =
        TransferRequest { from: empty, to: wallet, amount: "10", fee: None, note: Note::default() };
    let transfer = wallets.transfer(request, meta).await.unwrap().id;
    let hold = wallets
        .place_hold(wallet, "10", (Duration::from_mins(10), Note::default()), meta)
        .await
        .unwrap()
        .id;
    let freeze = WalletChanges { freeze: Some(true), ..WalletChanges::default() };
    wallets.update(frozen, &freeze, meta).await.unwrap();
    Resources { wallet, empty, frozen, transfer, hold, user, other }
}
