//! The page at `/exchange` in Chromium: register, quote, buy, sell, and follow the steps of an order.

use revwallet::auth::Scope;
use serde_json::json;

use super::{
    assert_faults_happened, balances, buy, fault, fund_hot, order_id, reaches, sell, set_price,
    texts, trader,
};
use crate::harness::browser::{Browser, Look};
use crate::harness::users::User;
use crate::harness::{TestApp, run, run_with};

/// Opens a view of the page.
pub(super) async fn show(app: &TestApp, browser: &Browser, view: &str) {
    browser.open(&format!("http://{}/exchange#{view}", app.address)).await;
}

pub(super) async fn visit(app: &TestApp, look: Look) -> Browser {
    let browser = Browser::start(look).await;
    show(app, &browser, "trade").await;
    browser.see("#trade-title", "Trade").await;
    browser
}

/// Signs in with the form, and waits until the balance is shown.
async fn sign_in(browser: &Browser, name: &str, user: &User) {
    browser.sign_in(name, user).await;
    browser.see("#fiat-balance", "EUR").await;
}

/// Asks for a quote, and waits until it is shown. `unit` is `fiat_amount` or `crypto_amount`.
async fn quote(browser: &Browser, side: &str, amount: &str, unit: &str) {
    browser.click(&format!("#quote [value={side}]")).await;
    let choose = "
        const unit = document.querySelector('#unit');
        unit.value = arguments[0];
        unit.dispatchEvent(new Event('change'));";
    browser.run(&choose.replace("arguments[0]", &format!("'{unit}'"))).await;
    browser.write("#amount", amount).await;
    browser.click("#quote .button").await;
    browser.see("#countdown", "This price is locked for").await;
}

#[tokio::test]
async fn a_newcomer_registers_deposits_buys_and_sells() {
    run(async |app| {
        let browser = visit(app, Look::Desktop).await;
        browser.see("#trade-sign-in", "Sign in or register").await;
        browser.click("#sign-in-link").await;
        browser.see("#register-title", "Register").await;
        let fields = [
            ("username", "ada"),
            ("first_name", "Ada"),
            ("last_name", "Lovelace"),
            ("email", "ada@example.com"),
            ("password", "test-secret by ada!"),
        ];
        for (name, text) in fields {
            browser.write(&format!("#register [name={name}]"), text).await;
        }
        browser.click("#register .button").await;
        browser.see("#who", "ada (user 2)").await;
        browser.see("#open-wallets", "Trading needs a wallet in both currencies.").await;
        browser.click("#open-wallets-button").await;
        browser.see("#fiat-balance", "0.00 EUR").await;
        browser.write("#deposit [name=fiat_amount]", "1600").await;
        browser.click("#deposit .button").await;
        browser.see("#say", "Deposited 1\u{202f}600 EUR.").await;
        browser.see("#fiat-balance", "1\u{202f}600.00 EUR").await;
        browser.see("#no-orders", "No orders yet.").await;

        quote(&browser, "buy", "30", "fiat_amount").await;
        let terms = "You pay\n30.00 EUR\nYou get\n3.00000000 BTC\nPrice\n10 EUR / BTC";
        browser.see("#offer-terms", terms).await;
        browser.see("#order", "Buy 3.00000000 BTC").await;
        browser.click("#order .button").await;
        browser.see("#order-title", "Order 1: buy BTC").await;
        browser.see("#say", "Order 1 is placed.").await;
        browser.see("#order-state", "completed").await;
        for step in ["hold", "exchange", "withdraw"] {
            browser.see("#steps", step).await;
        }
        browser.see("#steps li:last-child", "1 attempt, transfer").await;
        browser.see("#live", "The order is over.").await;
        // Commands are for admins.
        assert_eq!(browser.text("#order-commands").await, "");
        assert_eq!(browser.text(".tabs [href='#manage']").await, "");

        browser.click(".tabs [href='#trade']").await;
        browser.see("#crypto-balance", "3.00000000 BTC").await;
        browser.see("#orders", "Order 1: Buy 3.00000000 BTC for 30.00 EUR").await;
        quote(&browser, "sell", "1.5", "crypto_amount").await;
        browser.see("#offer-terms", "You pay\n1.50000000 BTC\nYou get\n15.00 EUR").await;
        browser.click("#order .button").await;
        browser.see("#order-title", "Order 2: sell BTC").await;
        browser.see("#order-state", "completed").await;
        browser.see("#steps", "payout").await;
        browser.click(".tabs [href='#trade']").await;
        browser.see("#fiat-balance", "1\u{202f}585.00 EUR").await;
        browser.see("#crypto-balance", "1.50000000 BTC").await;
        browser.see("#orders li:first-child", "Order 2: Sell 1.50000000 BTC").await;
        let complaints = browser.complaints("status of 404").await;
        assert!(complaints.is_empty(), "{complaints:?}");
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_quote_that_expires_is_replaced_and_the_order_has_the_price_on_the_page() {
    run_with(&["--quote-lifetime=3s"], async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let browser = visit(app, Look::Desktop).await;
        sign_in(&browser, "ada", &ada).await;
        quote(&browser, "buy", "60", "fiat_amount").await;
        browser.see("#offer-terms", "10 EUR / BTC").await;
        set_price(app, "12").await;
        browser.see("#offer-terms", "12 EUR / BTC").await;
        browser.see("#order", "Buy 5.00000000 BTC").await;
        browser.click("#order .button").await;
        browser.see("#order-state", "completed").await;
        browser.see("#order-terms", "12 EUR / BTC").await;
        assert_eq!(balances(&ada).await, texts("40.00", "5.00000000"));
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_the_server_refuses_is_shown_and_moves_nothing() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let browser = visit(app, Look::Desktop).await;
        sign_in(&browser, "ada", &ada).await;
        for (amount, refusal) in [
            ("0.001", "Fiat amount has more than 2 decimals"),
            ("0", "Fiat amount"),
            ("-5", "Fiat amount"),
            ("", "Must have fiat_amount or crypto_amount"),
        ] {
            browser.write("#amount", amount).await;
            browser.click("#quote .button").await;
            browser.see("#quote .problem", refusal).await;
            assert_eq!(browser.text("#offer").await, "", "{amount}");
        }
        quote(&browser, "buy", "100.01", "fiat_amount").await;
        browser.click("#order .button").await;
        browser.see("#order .problem", "100.00 is available, 100.01 is required").await;
        // A quote that was used meanwhile is replaced.
        quote(&browser, "buy", "50", "fiat_amount").await;
        app.database.execute("update exchange_quote set expires_at = now()").await;
        browser.click("#order .button").await;
        browser.see("#order .problem", "quote").await;
        browser.see("#countdown", "This price is locked for").await;
        assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"));
        browser.click("#order .button").await;
        browser.see("#order-state", "completed").await;
        assert_eq!(balances(&ada).await, texts("50.00", "5.00000000"));
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_steps_of_an_order_are_live_and_polled_while_the_socket_is_down() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let browser = visit(app, Look::Desktop).await;
        sign_in(&browser, "ada", &ada).await;
        let never_opens = "window.WebSocket = class extends EventTarget { close() {} }";
        for (script, live) in [("", "Live."), (never_opens, "No live connection")] {
            set_price(app, "10").await;
            quote(&browser, "buy", "30", "fiat_amount").await;
            // The house pays more than the quote says, and has nothing.
            set_price(app, "11").await;
            browser.run(script).await;
            browser.click("#order .button").await;
            browser.see("#order-state", "processing").await;
            browser.see("#order-reason", "the hot wallet is short").await;
            browser.see("#steps li:last-child", "waiting").await;
            browser.see("#live", live).await;
            fund_hot(app, "EUR", "3").await;
            browser.see("#order-state", "completed").await;
            browser.see("#live", "The order is over.").await;
            browser.click(".tabs [href='#trade']").await;
            browser.see("#trade-title", "Trade").await;
        }
        assert_eq!(balances(&ada).await, texts("40.00", "6.00000000"));
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_order_that_fails_shows_its_reason_and_what_was_undone() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let browser = visit(app, Look::Desktop).await;
        sign_in(&browser, "ada", &ada).await;
        quote(&browser, "buy", "30", "fiat_amount").await;
        fault(app, "withdraw-do", "refused", 1).await;
        browser.click("#order .button").await;
        browser.see("#order-state", "failed").await;
        browser.see("#order-reason", "the order was rejected").await;
        browser.see("#steps li:first-child", "undone by transfer").await;
        browser.see("#steps li:last-child", "failed").await;
        browser.click(".tabs [href='#trade']").await;
        browser.see("#orders", "the order was rejected").await;
        browser.see("#fiat-balance", "100.00 EUR").await;
        assert_faults_happened(app).await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_is_sent_again_and_placed_once() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let browser = visit(app, Look::Desktop).await;
        sign_in(&browser, "ada", &ada).await;
        quote(&browser, "buy", "30", "fiat_amount").await;
        browser.lose_next_answer().await;
        browser.click("#order .button").await;
        browser.see("#order .problem", "Cannot reach the server").await;
        browser.see("#countdown", "Press again: it is placed once.").await;
        reaches(&ada, 1, "completed").await;
        browser.click("#order .button").await;
        browser.see("#order-title", "Order 1: buy BTC").await;
        browser.see("#order-state", "completed").await;
        assert_eq!(balances(&ada).await, texts("70.00", "3.00000000"));
        let orders = ada.get(&format!("/exchange/orders/{}", ada.id)).await.json();
        assert_eq!(orders.as_array().unwrap().len(), 1);
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn where_funding_is_not_self_service_there_is_no_deposit_form() {
    run_with(&["--access=closed"], async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let browser = visit(app, Look::Desktop).await;
        sign_in(&browser, "ada", &ada).await;
        assert_eq!(browser.text("#deposit").await, "");
        quote(&browser, "buy", "30", "fiat_amount").await;
        browser.click("#order .button").await;
        browser.see("#order-state", "completed").await;
        // An order of another user is like one that does not exist.
        show(app, &browser, "order=99").await;
        browser.see("#say.bad", "There is no such order").await;
        browser.see("#fiat-balance", "70.00 EUR").await;
        browser.close().await;
    })
    .await;
}

/// An order whose undo of the trade was refused.
pub(super) async fn stuck(app: &TestApp, user: &User) -> i64 {
    fault(app, "withdraw-do", "refused", 1).await;
    fault(app, "exchange-undo", "refused", 1).await;
    let id = order_id(&buy(user, json!({ "fiat_amount": 30 })).await);
    reaches(user, id, "stuck").await;
    id
}

async fn use_key(app: &TestApp, browser: &Browser) {
    let admin = app.api_key(&[Scope::Admin]).await;
    show(app, browser, "sign-in").await;
    browser.see("#sign-in-title", "Sign in").await;
    browser.write("#access [name=key]", admin.credential()).await;
    browser.click("#access .button").await;
    browser.see("#who", "API key").await;
}

#[tokio::test]
async fn an_admin_finds_stuck_orders_and_retries_one_and_all() {
    run(async |app| {
        let (ada, bob) = (trader(app, "ada", 10_000).await, trader(app, "bob", 10_000).await);
        let done = order_id(&buy(&ada, json!({ "fiat_amount": 10 })).await);
        reaches(&ada, done, "completed").await;
        let ids = [stuck(app, &ada).await, stuck(app, &ada).await, stuck(app, &bob).await];
        assert_faults_happened(app).await;
        let browser = visit(app, Look::Desktop).await;
        use_key(app, &browser).await;
        browser.click(".tabs [href='#manage']").await;
        browser.see("#manage-title", "All orders").await;
        // The trades that could not be undone are the house's.
        browser.see("#hot-wallets", "EUR\n0.00\nBTC\n9.00000000").await;
        browser.see("#all-orders li:last-child", "completed").await;
        browser.run("document.querySelector('#filter [name=state]').value = 'stuck'").await;
        browser.write("#filter [name=user]", &bob.id).await;
        browser.click("#filter .button").await;
        browser.see("#all-orders", &format!("user {}", bob.id)).await;
        crate::harness::eventually("one order is listed", async || {
            browser.run("return document.querySelectorAll('#all-orders li').length").await == 1
        })
        .await;

        browser.click("#all-orders a").await;
        browser.see("#order-title", &format!("Order {}: buy BTC", ids[2])).await;
        browser.see("#live", "Live.").await;
        browser.click("#command .button").await;
        browser.see("#command .problem", "Reason is required").await;
        browser.run("document.querySelector('#command [name=command]').value = 'approve'").await;
        browser.write("#command [name=reason]", "ticket 4711").await;
        browser.click("#command .button").await;
        browser.see("#command .problem", "t does not wait for approval").await;
        browser.run("document.querySelector('#command [name=command]').value = 'retry'").await;
        browser.click("#command .button").await;
        browser.see("#say", "takes the command retry.").await;
        browser.see("#order-state", "failed").await;
        assert_eq!(browser.text("#order-commands").await, "");
        assert_eq!(balances(&bob).await, texts("100.00", "0.00000000"));

        browser.click(".tabs [href='#manage']").await;
        browser.see("#manage-title", "All orders").await;
        browser.write("#bulk [name=reason]", "the exchange is back").await;
        browser.click("#bulk .button").await;
        browser.see("#say", "2 orders take the command retry.").await;
        for id in &ids[..2] {
            reaches(&ada, *id, "failed").await;
        }
        assert_eq!(balances(&ada).await, texts("90.00", "1.00000000"));
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_admin_resolves_an_unknown_order() {
    let settings = ["--order-attempts=1", "--order-unknown-interval=1h"];
    run_with(&settings, async |app| {
        let ada = trader(app, "ada", 10_000).await;
        fault(app, "exchange-do", "mute", 1).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        reaches(&ada, id, "unknown").await;
        assert_faults_happened(app).await;
        let browser = visit(app, Look::Desktop).await;
        use_key(app, &browser).await;
        show(app, &browser, &format!("order={id}")).await;
        browser.see("#order-state", "unknown").await;
        let choose = "
            const select = document.querySelector('#command [name=command]');
            select.value = 'resolve';
            select.dispatchEvent(new Event('change'));";
        browser.run(choose).await;
        browser.see("#outcome", "Outcome").await;
        browser.write("#command [name=reason]", "confirmed by the exchange").await;
        browser.click("#command .button").await;
        browser.see("#order-state", "completed").await;
        assert_eq!(balances(&ada).await, texts("70.00", "3.00000000"));
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_exchange_can_be_read_on_a_desk_in_the_dark_and_on_a_phone() {
    let settings = ["--exchange-fee=1.5", "--exchange-min=1", "--exchange-approval=200000"];
    run_with(&settings, async |app| {
        let ada = trader(app, "ada", 123_456_789).await;
        let (bought, sold) = (json!({ "fiat_amount": 30_000 }), json!({ "crypto_amount": 1.5 }));
        reaches(&ada, order_id(&buy(&ada, bought).await), "completed").await;
        reaches(&ada, order_id(&sell(&ada, sold).await), "completed").await;
        let stuck = stuck(app, &ada).await;
        order_id(&buy(&ada, json!({ "fiat_amount": 250_000 })).await);
        fault(app, "exchange-do", "refused", 1).await;
        let failed = order_id(&buy(&ada, json!({ "fiat_amount": 45 })).await);
        reaches(&ada, failed, "failed").await;
        for (look, name) in [
            (Look::Desktop, Some("exchange")),
            (Look::Dark, Some("exchange-dark")),
            (Look::Phone, Some("exchange-phone")),
            (Look::Narrow, None),
        ] {
            let browser = visit(app, look).await;
            browser.assert_readable(look, "a visitor").await;
            browser.click("#sign-in-link").await;
            browser.see("#register-title", "Register").await;
            browser.assert_readable(look, "sign in").await;
            sign_in(&browser, "ada", &ada).await;
            for (order, state) in [(1, "completed"), (failed, "failed"), (stuck, "stuck")] {
                show(app, &browser, &format!("order={order}")).await;
                browser.see("#order-state", state).await;
                browser.assert_readable(look, &format!("an order that is {state}")).await;
            }
            show(app, &browser, "trade").await;
            browser.see("#fiat-balance", "EUR").await;
            quote(&browser, "buy", "1234.56", "fiat_amount").await;
            browser.assert_readable(look, "a quote").await;
            if let Some(name) = name {
                browser.run("document.activeElement.blur()").await;
                browser.picture(&format!("{name}.png")).await;
            }
            use_key(app, &browser).await;
            show(app, &browser, "manage").await;
            browser.see("#all-orders", "waits for approval").await;
            browser.assert_readable(look, "all orders").await;
            show(app, &browser, &format!("order={stuck}")).await;
            browser.see("#order-commands", "Reason").await;
            browser.assert_readable(look, "commands").await;
            browser.close().await;
        }
    })
    .await;
}
