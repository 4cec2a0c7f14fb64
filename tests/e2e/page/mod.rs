//! The page at `/` in Chromium: every action on wallets, by mouse and by keyboard.

mod forms;
mod history;
mod holds;
mod phone;
mod statement;

use serde_json::json;

use crate::harness::browser::{Browser, Look};
use crate::harness::{TestApp, eventually, run};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

async fn visit(app: &TestApp, look: Look) -> Browser {
    let browser = Browser::start(look).await;
    browser.open(&format!("http://{}/", app.address)).await;
    browser
}

/// Asserts that the browser console is empty; a 422 that the page explains is expected.
async fn is_content(browser: &Browser) {
    let complaints = browser.complaints("status of 422").await;
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// Waits until the element with this id has the focus.
async fn has_focus(browser: &Browser, id: &str) {
    let focused = "return document.activeElement.id";
    eventually(&format!("{id} has the focus"), async || browser.run(focused).await == id).await;
}

/// Creates wallets with a varied history.
async fn lively(app: &TestApp) {
    for (owner, currency, balance) in [
        ("Ada Lovelace", "EUR", "1250.00"),
        ("Corner shop", "EUR", "310.40"),
        ("Grace Hopper", "USD", "88.20"),
        ("Studio Kyoto", "JPY", "480000"),
        ("Cold storage", "BTC", "1.25000000"),
    ] {
        let body = json!({ "owner": owner, "currency": currency, "initial_balance": balance });
        assert_eq!(app.post("/wallet", body).await.status, 201);
    }
    for (to, amount, memo) in
        [("2", "4.50", "coffee"), ("2", "18.90", "lunch for two"), ("2", "120.00", "")]
    {
        let mut body = json!({ "from": "1", "to": to, "amount": amount, "memo": memo });
        if memo.is_empty() {
            body.as_object_mut().unwrap().remove("memo");
        }
        assert_eq!(app.post("/wallet/transfer", body).await.status, 201);
    }
    app.post("/wallet/hold", json!({ "id": "1", "amount": 60 })).await;
    app.post("/wallet/refund", json!({ "transfer": "12", "amount": "3.90" })).await;
}

#[tokio::test]
async fn a_person_opens_deposits_withdraws_and_transfers() {
    run(async |app| {
        let browser = visit(app, Look::Desktop).await;
        browser.see("#found", "No wallets yet").await;

        browser.write("#open [name=owner]", "Ada <b>Lovelace</b>").await;
        browser.write("#open [name=initial_balance]", "10").await;
        browser.click("#open button").await;
        browser.see("#say", "Opened wallet #1 with 10.00 EUR").await;
        browser.see("#wallet-title", "Ada <b>Lovelace</b>").await;
        browser.write("#open [name=owner]", "Shop").await;
        browser.click("#open button").await;
        browser.see("#wallets", "#2").await;
        browser.click("#wallets [data-id='1']").await;
        browser.see("#balance", "10.00 EUR").await;

        browser.write("#deposit [name=amount]", "1234.56").await;
        browser.click("#deposit button").await;
        browser.see("#say", "Deposited").await;
        browser.see("#balance", "1\u{202f}244.56 EUR").await;
        browser.write("#withdraw [name=amount]", "2000").await;
        browser.click("#withdraw button").await;
        browser.see("#withdraw .problem", "1244.56 is available, 2000.00 is required").await;
        browser.write("#withdraw [name=amount]", "0.001").await;
        browser.click("#withdraw button").await;
        browser.see("#withdraw .problem", "Amount has more than 2 decimals.").await;
        assert_eq!(browser.run("return document.activeElement.name").await, "amount");
        browser.write("#transfer [name=to]", "2").await;
        browser.write("#transfer [name=amount]", "44.56").await;
        browser.write("#transfer [name=memo]", "for the <i>coffee</i>").await;
        browser.click("#transfer button").await;
        browser.see("#say", "Transferred 44.56 EUR to wallet #2").await;
        browser.see("#balance", "1\u{202f}200.00 EUR").await;
        browser.see("#history tr:first-child", "for the <i>coffee</i>").await;
        browser.see("#history tr:first-child", "\u{2212}44.56").await;

        is_content(&browser).await;
        assert_eq!(app.get("/wallet/2").await.json()["balance"], 44.56);
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_and_the_money_moves_once() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "10").await;
        let browser = visit(app, Look::Desktop).await;
        browser.see("#wallets", "10.00 EUR").await;
        browser.click(&format!("#wallets [data-id='{wallet}']")).await;
        browser.see("#balance", "10.00 EUR").await;
        browser.lose_next_answer().await;

        browser.write("#deposit [name=amount]", "5").await;
        browser.click("#deposit button").await;
        let balance =
            async || app.get(&format!("/wallet/{wallet}")).await.json()["balance"].clone();
        eventually("the request has arrived", async || balance().await == 15.0).await;
        browser.see("#deposit .problem", "Cannot reach the server").await;
        browser.click("#deposit button").await;
        browser.see("#say", "Deposited. The balance is 15.00 EUR").await;
        // The form ignores clicks until the wallet is shown anew.
        let busy = "return document.querySelector('#deposit button').disabled";
        eventually("the form is ready", async || browser.run(busy).await == false).await;
        // A deposit after a success is a new request with a new idempotency key.
        browser.write("#deposit [name=amount]", "5").await;
        browser.click("#deposit button").await;
        browser.see("#say", "Deposited. The balance is 20.00 EUR").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_wallet_that_arrives_late_does_not_take_the_focus() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "20").await);
        let browser = visit(app, Look::Desktop).await;
        browser.see("#wallets", "20.00 EUR").await;
        browser.click(&format!("#wallets [data-id='{a}']")).await;
        browser.see("#balance", "10.00 EUR").await;
        let focused = "return document.activeElement.id || document.activeElement.name";
        eventually("the title is read", async || browser.run(focused).await == "wallet-title")
            .await;
        // Responses wait until the page says so.
        let held = "
            const real = window.fetch;
            const released = new Promise((resolve) => { window.release = resolve; });
            window.fetch = (...request) => released.then(() => real(...request));";
        browser.run(held).await;

        browser.click(&format!("#wallets [data-id='{b}']")).await;
        browser.click("#deposit [name=amount]").await;
        browser.run("window.release()").await;

        browser.see("#history", "20.00").await;
        assert_eq!(browser.run(focused).await, "amount");
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn metadata_of_a_sender_does_not_break_the_page_of_the_receiver() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "100").await, app.open_wallet("EUR", "0").await);
        for metadata in [
            r#"{"amount":1e5}"#,
            r#"{"balance":-1.5E+3,"available":0e0,"list":[1,-2.50,3e-7],"fee":12345678901234567890.12}"#,
            r#"{"text":"\"amount\":7 \\","amount\"":1,"\u0022held\u0022":2}"#,
        ] {
            let body = format!(r#"{{"from":"{a}","to":"{b}","amount":"0.50","memo":"\"amount\":1","metadata":{metadata}}}"#);
            let request = app.request(http::Method::POST, "/wallet/transfer");
            let request = request.header("content-type", "application/json").body(body);
            let response = app.send(request).await;
            assert_eq!(response.status, 201, "{}", response.text);
        }
        let browser = visit(app, Look::Desktop).await;
        browser.open(&format!("http://{}/#wallet={b}", app.address)).await;

        browser.see("#balance", "1.50 EUR").await;
        browser.see("#history tr:first-child", "\"amount\":1").await;
        browser.see("#history tr:first-child", "+0.50").await;
        browser.see("#history tr:first-child .balance", "1.50").await;
        assert_eq!(
            browser.run("return document.querySelectorAll('#history tr').length").await,
            4,
            "three transfers and the opening"
        );
        is_content(&browser).await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn everything_can_be_done_by_keyboard() {
    run(async |app| {
        app.open_wallet("EUR", "10").await;
        let browser = visit(app, Look::Desktop).await;
        browser.see("#wallets", "ada").await;

        // Move the focus to the first wallet, then to its deposit form.
        let mut tabs = 0;
        while browser.run("return document.activeElement.dataset?.id ?? ''").await != "1" {
            browser.press(TAB).await;
            tabs += 1;
            assert!(tabs < 12, "the list is not reached");
        }
        browser.press(ENTER).await;
        browser.see("#balance", "10.00 EUR").await;
        let mut tabs = 0;
        while browser.run("return document.activeElement.closest('form')?.id ?? ''").await
            != "deposit"
        {
            browser.press(TAB).await;
            tabs += 1;
            assert!(tabs < 15, "the deposit is not reached");
        }
        browser.press(&format!("5{ENTER}")).await;
        browser.see("#balance", "15.00 EUR").await;

        is_content(&browser).await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn long_lists_and_histories_come_in_pages() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "100").await, app.open_wallet("EUR", "0").await);
        let order = json!({ "from": a, "to": b, "amount": "0.01" });
        let batch = json!({ "atomic": true, "transfers": vec![order; 60] });
        assert_eq!(app.post("/wallet/batch", batch).await.status, 201);
        let browser = visit(app, Look::Desktop).await;
        browser.open(&format!("http://{}/#wallet={a}", app.address)).await;
        browser.see("#balance", "99.40 EUR").await;
        let lines =
            async || browser.run("return document.querySelectorAll('#history tr').length").await;
        browser.see("#older", "Older").await;
        eventually("the first page", async || lines().await == 25).await;

        for expected in [50, 62] {
            browser.click("#older").await;
            eventually("the next page", async || lines().await == expected).await;
        }

        assert_eq!(browser.run("return document.querySelector('#older').hidden").await, true);
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn it_can_be_read_on_a_desk_in_the_dark_and_on_a_phone() {
    run(async |app| {
        lively(app).await;
        for (look, name) in
            [(Look::Desktop, "desktop.png"), (Look::Dark, "dark.png"), (Look::Phone, "phone.png")]
        {
            let browser = visit(app, look).await;
            browser.open(&format!("http://{}/#wallet=1", app.address)).await;
            browser.see("#history", "Transfer").await;

            browser.assert_readable(look, "/").await;
            browser.run("document.activeElement.blur(); scrollTo(0, 0)").await;
            browser.picture(name).await;
            is_content(&browser).await;
            browser.close().await;
        }
    })
    .await;
}

/// Paths of all files of the pages.
fn paths() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let paths = names.filter_map(|name| {
        let name = name.to_str().unwrap();
        match name.split_once('.').unwrap() {
            (_, "rs") => None,
            ("wallets", "html") => Some("/".to_owned()),
            (page, "html") => Some(format!("/{page}")),
            _ => Some(format!("/assets/{name}")),
        }
    });
    paths.collect()
}

#[tokio::test]
async fn files_are_asked_about_and_not_sent_again() {
    run(async |app| {
        for path in paths() {
            let path = path.as_str();
            let first = app.get(path).await;
            assert_eq!(first.status, 200, "{path}");
            assert!(first.header("content-security-policy").starts_with("default-src 'none'"));
            assert!(!first.text.contains("<script>") && !first.text.contains("style="), "{path}");
            let request = app.request(http::Method::GET, path);
            let again = app.send(request.header("if-none-match", first.header("etag"))).await;
            assert_eq!((again.status, again.text.as_str()), (304, ""), "{path}");
        }
    })
    .await;
}
