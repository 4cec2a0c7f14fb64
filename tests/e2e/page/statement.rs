//! The statement of a wallet as a file, with the credential of the page.

use http::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::visit;
use crate::harness::browser::Look;
use crate::harness::run_with;

#[tokio::test]
async fn a_statement_is_downloaded_with_the_credential_of_the_page() {
    run_with(&["--access=closed"], async |app| {
        let key = app.api_key(&[Scope::WalletRead, Scope::WalletWrite]).await;
        let body = json!({ "owner": "ada", "currency": "EUR", "initial_balance": "10.00" });
        assert_eq!(key.post("/wallet", body).await.status, 201);
        let body = json!({ "id": "1", "amount": "2.50", "memo": "=1+1" });
        assert_eq!(key.post("/wallet/deposit", body).await.status, 200);
        let browser = visit(app, Look::Desktop).await;
        browser.open(&format!("http://{}/#wallet=1", app.address)).await;
        browser.see("#say.bad", ".").await;
        browser.click("details:has(#access) summary").await;
        browser.write("#access [name=key]", key.credential()).await;
        browser.click("#access button").await;
        browser.see("#balance", "12.50 EUR").await;

        browser.click("#statement button").await;
        browser.see("#say", "Saved the statement as statement-1.csv.").await;
        let csv = browser.download("statement-1.csv").await;
        let request = key.request(Method::GET, "/wallet/1/statement").header("accept", "text/csv");
        assert_eq!(csv, key.send(request).await.text);
        assert!(csv.contains("12.50"), "{csv}");

        browser.run("document.querySelector('#statement [name=format]').value = 'JSON'").await;
        browser.run("document.querySelector('#statement [name=from]').value = '2020-01-01'").await;
        browser.run("document.querySelector('#statement [name=to]').value = '2020-02-01'").await;
        browser.click("#statement button").await;
        let name = "statement-1-from-2020-01-01-before-2020-02-01.json";
        let json: Value = serde_json::from_str(&browser.download(name).await).unwrap();
        assert_eq!(json["as_of_at"], "2020-02-01T00:00:00Z");
        assert_eq!(json["entries"], json!([]));

        // What the server refuses is beside the form, as it is for every other one.
        browser.run("sessionStorage.clear()").await;
        browser.click("#statement button").await;
        browser.see("#statement .problem", ".").await;
        browser.close().await;
    })
    .await;
}
