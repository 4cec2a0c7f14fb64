//! `/wallet/info`: what the server offers its clients, as its settings have it.

use revwallet::auth::Scope;
use serde_json::json;

use crate::harness::run_with;

#[tokio::test]
async fn it_lists_every_currency_with_its_decimals() {
    run_with(&["--currency=POINTS:0", "--default-currency=USD"], async |app| {
        let info = app.get("/wallet/info").await.json();

        assert_eq!(info["default_currency"], "USD");
        assert_eq!(info["grafana_url"], json!(null));
        let listed = info["currencies"].as_array().unwrap();
        for (code, decimals) in [("EUR", 2), ("JPY", 0), ("BTC", 8), ("POINTS", 0)] {
            assert!(listed.contains(&json!({ "code": code, "decimals": decimals })), "{code}");
        }
        let codes: Vec<_> = listed.iter().map(|each| each["code"].as_str().unwrap()).collect();
        assert!(codes.is_sorted(), "{codes:?}");
        for code in codes {
            let opened = app.post("/wallet", json!({ "owner": "ada", "currency": code })).await;
            assert_eq!(opened.status, 201, "{code}: {}", opened.text);
        }
    })
    .await;
}

#[tokio::test]
async fn it_says_where_grafana_is() {
    run_with(&["--grafana-url=https://example.com/grafana/"], async |app| {
        let info = app.get("/wallet/info").await.json();

        assert_eq!(info["grafana_url"], "https://example.com/grafana");
    })
    .await;
}

#[tokio::test]
async fn where_access_is_closed_it_is_for_callers_that_may_list_wallets() {
    run_with(&["--access=closed"], async |app| {
        app.get("/wallet/info").await.problem(401, "unauthenticated");
        let games = app.api_key(&[Scope::GamesRead]).await;
        games.get("/wallet/info").await.problem(403, "forbidden");
        let reader = app.api_key(&[Scope::WalletRead]).await;
        assert_eq!(reader.get("/wallet/info").await.status, 200);
    })
    .await;
}
