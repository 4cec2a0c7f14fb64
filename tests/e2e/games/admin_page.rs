//! The management of the page at `/store` in Chromium: games, sales, activation keys, statements.

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::page::{show, visit};
use super::{add, buy, buyer, publisher, titles};
use crate::harness::browser::{Browser, Look};
use crate::harness::{Client, TestApp, run};

/// Uses an API key with the form of the page.
async fn use_key(app: &TestApp, browser: &Browser, key: &Client) {
    show(app, browser, "sign-in").await;
    browser.see("#sign-in-title", "Sign in").await;
    browser.write("#access [name=key]", key.credential()).await;
    browser.click("#access button").await;
    browser.see("#who", "API key").await;
}

async fn fill(browser: &Browser, form: &str, fields: &[(&str, &str)]) {
    for (name, text) in fields {
        browser.write(&format!("#{form} [name={name}]"), text).await;
    }
    browser.click(&format!("#{form} .button")).await;
}

async fn game(app: &TestApp, id: i64) -> Value {
    Client::new(app.address).get(&format!("/api/games/{id}")).await.json()
}

#[tokio::test]
async fn an_admin_adds_a_game_with_a_sale_and_keys_and_reads_the_statement() {
    run(async |app| {
        let admin = app.api_key(&[Scope::Admin]).await;
        let (_, nova) = publisher(app, "nova", "12.5").await;
        let ada = buyer(app, "ada", 10_000).await;
        let browser = visit(app, Look::Desktop).await;
        use_key(app, &browser, &admin).await;
        browser.click(".tabs a[href='#manage']").await;
        browser.see("#edit-title", "Add a game").await;

        let alpha = [("title", "Alpha"), ("genre", "puzzle"), ("price", "19.999")];
        fill(&browser, "edit", &alpha).await;
        browser.see("#edit .problem", "Price has more than 2 decimals.").await;
        assert_eq!(browser.run("return document.activeElement.name").await, "price");
        let rest = [("price", "19.99"), ("prices", "21.99 usd"), ("copies", "100")];
        fill(&browser, "edit", &[&rest as &[_], &[("publisher", &nova as &str)]].concat()).await;
        browser.see("#say", "Alpha is added.").await;
        browser.see("#manage-title", "Manage Alpha").await;
        browser.see("#no-sales", "No sales yet.").await;
        let id = Client::new(app.address).get("/api/games").await.json()["games"][0]["gameId"]
            .as_i64()
            .unwrap();
        let added = game(app, id).await;
        assert_eq!((&added["publisher"], &added["copies"]), (&json!(nova), &json!(100)));
        assert_eq!(added["prices"][1], json!({ "currency": "USD", "price": 21.99 }));

        fill(&browser, "edit", &[("title", "Alpha Two")]).await;
        browser.see("#say", "The game is changed.").await;
        browser.see("#manage-title", "Manage Alpha Two").await;
        let changed = game(app, id).await;
        assert_eq!((&changed["title"], &changed["price"]), (&json!("Alpha Two"), &json!(19.99)));
        assert_eq!(changed["copies"], 100);

        // The window is filled in: a week from now.
        fill(&browser, "sale", &[("sale", "winter"), ("percent", "120")]).await;
        browser.see("#sale .problem", "Percent").await;
        fill(&browser, "sale", &[("percent", "20"), ("budget", "5")]).await;
        browser.see("#say", "The sale winter is saved.").await;
        browser.see("#sales", "winter: 20 % off").await;
        browser.see("#sales", "5 of 5 left").await;
        assert_eq!(game(app, id).await["prices"][0]["sale"]["price"], 15.99);

        fill(&browser, "keys", &[("count", "2")]).await;
        browser.see("#say", "Made 2 keys.").await;
        let keys = browser.run("return document.querySelector('#made-keys textarea').value").await;
        let keys: Vec<&str> = keys.as_str().unwrap().lines().collect();
        assert_eq!(keys.len(), 2);
        let bob = app.user("bob").await;
        let redeemed = bob.post("/api/games/redeem", json!({ "key": keys[0] })).await;
        assert_eq!(redeemed.status, 200, "{}", redeemed.text);
        assert_eq!(titles(&bob).await, ["Alpha Two"]);

        let bought = buy(&ada, id, json!({ "expected_price": "15.99" })).await;
        assert_eq!(bought.status, 201, "{}", bought.text);
        fill(&browser, "statement", &[("publisher", &nova)]).await;
        browser.see("#say", "Statement of publisher").await;
        // An eighth of the price is the fee: 2.00 of 15.99.
        for line in ["Sales\n15.99 EUR", "Fees\n\u{2212}2.00 EUR", "Balance after\n13.99 EUR"] {
            browser.see("#sums", line).await;
        }
        browser.see("#entries", &format!("sale of game {id}")).await;

        // The message leaves what it covers.
        browser.click("#statement-title").await;
        browser.click("#sales .actions button:last-child").await;
        browser.see("#say", "The sale winter is deleted.").await;
        browser.see("#no-sales", "No sales yet.").await;
        assert_eq!(game(app, id).await["prices"][0]["sale"], Value::Null);
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_plain_game_is_added_and_changed_without_a_credential_and_a_published_one_becomes_a_draft()
 {
    run(async |app| {
        let browser = visit(app, Look::Desktop).await;
        show(app, &browser, "manage").await;
        browser.see("#edit-title", "Add a game").await;
        let fields =
            [("title", "Plain"), ("genre", "puzzle"), ("price", "5"), ("description", "Old")];
        fill(&browser, "edit", &fields).await;
        browser.see("#manage-title", "Manage Plain").await;
        // Sales and keys are for managers.
        assert_eq!(browser.text("#offers").await, "");
        fill(&browser, "edit", &[("price", "6.50")]).await;
        browser.see("#say", "The game is changed.").await;
        assert_eq!(game(app, 1).await["price"], 6.5);
        fill(&browser, "edit", &[("copies", "5")]).await;
        browser.see("#edit .problem", ".").await;
        assert_eq!(game(app, 1).await["copies"], Value::Null);

        let store = app.api_key(&[Scope::GamesWrite]).await;
        use_key(app, &browser, &store).await;
        show(app, &browser, "manage").await;
        browser.see("#edit-title", "Add a game").await;
        fill(&browser, "find", &[("id", "1")]).await;
        browser.see("#manage-title", "Manage Plain").await;
        browser.run("document.querySelector('#edit [name=state]').value = 'draft'").await;
        fill(&browser, "edit", &[("title", "Hidden")]).await;
        browser.see("#manage-title", "Manage Hidden").await;
        Client::new(app.address).get("/api/games/1").await.problem(404, "game-not-found");
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_management_can_be_read_on_a_desk_in_the_dark_and_on_a_phone() {
    run(async |app| {
        let admin = app.api_key(&[Scope::Admin]).await;
        let (_, nova) = publisher(app, "nova", "12.5").await;
        let id = add(&admin, "Alpha", "1234567.89", json!({ "publisher": nova })).await;
        let ada = buyer(app, "ada", 1_000_000_000).await;
        assert_eq!(buy(&ada, id, json!({})).await.status, 201);
        for look in [Look::Desktop, Look::Dark, Look::Phone, Look::Narrow] {
            let browser = visit(app, look).await;
            use_key(app, &browser, &admin).await;
            show(app, &browser, "manage").await;
            browser.see("#edit-title", "Add a game").await;
            browser.assert_readable(look, "manage").await;
            show(app, &browser, &format!("manage={id}")).await;
            browser.see("#manage-title", "Manage Alpha").await;
            fill(&browser, "sale", &[("sale", "a-sale-with-a-rather-long-name"), ("percent", "5")])
                .await;
            // The sale is there since the first look, so it does not tell when this one is saved.
            browser.see("#say", "The sale a-sale-with-a-rather-long-name is saved.").await;
            browser.see("#sales", "a-sale-with-a-rather-long-name: 5 % off").await;
            fill(&browser, "keys", &[("count", "3")]).await;
            browser.see("#say", "Made 3 keys.").await;
            fill(&browser, "statement", &[("publisher", &nova)]).await;
            browser.see("#entries", "sale of game").await;
            browser.assert_readable(look, "manage a game").await;
            browser.close().await;
        }
    })
    .await;
}
