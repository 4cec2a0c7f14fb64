//! The page at `/live` in Chromium: both game events, a reconnect, and the keyboard.

use serde_json::json;

use crate::harness::browser::{Browser, Look};
use crate::harness::program::{Folder, Program};
use crate::harness::{Client, free_address, run, run_with};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

async fn deposit(client: &Client, user: &str, cents: i64) {
    let body = json!({ "userId": user, "amount": cents });
    let response = client.post("/api/wallet/deposit", body).await;
    assert_eq!(response.status, 200, "{}", response.text);
}

async fn visit(client: &Client, look: Look) -> Browser {
    let browser = Browser::start(look).await;
    browser.open(&format!("http://{}/live", client.address)).await;
    browser.see("#state", "Live.").await;
    browser
}

#[tokio::test]
async fn the_page_shows_messages_of_the_chosen_game_event() {
    run(async |app| {
        let browser = visit(app, Look::Desktop).await;
        browser.see("h1", "Gaming Platform Statistics").await;
        browser.see("#current", "Currently in the game event: Game progress").await;

        deposit(app, "ada", 12_300).await;
        browser.see("#messages", ": User ada initialized a wallet with 123.00 amount.").await;
        browser.picture("live.png").await;

        browser.click("#leaderboard-btn").await;
        browser.see("#current", "Currently in the game event: Leaderboard").await;
        browser.see("#messages .change", "Changed to the game event: Leaderboard").await;
        deposit(app, "<b>bob</b>", 20_000).await;
        browser.see("#messages", "User <b>bob</b> is leading the game with 200.00 amount").await;

        // Back by keyboard alone.
        browser.run("document.querySelector('#leaderboard-btn').focus()").await;
        browser.press(&format!("{TAB}{ENTER}")).await;
        browser.see("#current", "Game progress").await;
        // The page shows no leaders where there is no board.
        let complaints = browser.complaints("/api/leaderboard").await;
        assert!(complaints.is_empty(), "{complaints:?}");
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_page_fits_a_phone_and_the_dark() {
    run(async |app| {
        let player = "a-guest-with-a-rather-long-name-that-has-to-be-broken-somewhere";
        deposit(app, player, 12_345_678_900).await;
        for (look, name) in [
            (Look::Desktop, None),
            (Look::Phone, Some("live-phone.png")),
            (Look::Narrow, Some("live-narrow.png")),
            (Look::Dark, Some("live-dark.png")),
        ] {
            let browser = visit(app, look).await;
            // The browser may have taken longer to start than the server keeps an idle connection.
            deposit(&Client::new(app.address), player, 100).await;
            browser.see("#messages", "amount").await;
            browser.see("#leaders", player).await;

            browser.assert_readable(look, "/live").await;
            if let Some(name) = name {
                browser.picture(name).await;
            }
            browser.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn balances_have_the_decimals_of_the_currency() {
    for (currency, units, shown) in
        [("BTC", 123_456_789, "1.23456789"), ("BTC", 5, "0.00000005"), ("JPY", 700, "700")]
    {
        run_with(&[&format!("--default-currency={currency}")], async |app| {
            deposit(app, "ada", units).await;
            let browser = visit(app, Look::Desktop).await;
            browser.see("#leaders", "ada").await;
            assert_eq!(browser.text("#leaders td.number").await, shown);
            browser.close().await;
        })
        .await;
    }
}

#[tokio::test]
async fn everything_on_the_page_can_be_done_by_keyboard() {
    run(async |app| {
        deposit(app, "ada", 100).await;
        let browser = visit(app, Look::Desktop).await;
        browser.see("#leaders", "ada").await;
        let focused = "return document.activeElement.id || document.activeElement.innerText";
        let pressed = "return document.activeElement.getAttribute('aria-pressed')";
        let outline = "return getComputedStyle(document.activeElement).outlineStyle";

        for (expected, event) in [
            ("Wallets", None),
            ("Store", None),
            ("Exchange", None),
            ("API", None),
            ("leaderboard-btn", Some("Leaderboard")),
            ("gameprogress-btn", Some("Game progress")),
            ("scroll", None),
        ] {
            browser.press(TAB).await;
            assert_eq!(browser.run(focused).await, expected);
            assert_ne!(browser.run(outline).await, "none", "the focus is visible: {expected}");
            if let Some(event) = event {
                browser.press(ENTER).await;
                let line = format!("Currently in the game event: {event}");
                browser.see("#current", &line).await;
                assert_eq!(browser.run(pressed).await, "true");
            }
        }
        browser.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_reconnects_and_says_that_it_was_stale() {
    let (folder, address) = (Folder::new(), free_address());
    let (data, listen) = (folder.setting(), format!("--listen={address}"));
    let arguments = [&data as &str, &listen, "--internal-listen=127.0.0.1:0", "--access=open"];
    let program = Program::start(&arguments).await;
    let browser = visit(&program.public, Look::Desktop).await;
    deposit(&program.public, "ada", 100).await;
    browser.see("#messages", "User ada initialized").await;

    program.kill();
    browser.see("#state", "Disconnected since").await;
    let program = Program::start(&arguments).await;
    deposit(&program.public, "ada", 200).await;

    browser.see("#state", "Live.").await;
    browser.see("#messages", "User ada added 2.00 amount").await;
    let count = "return document.querySelectorAll('#messages li').length";
    assert_eq!(browser.run(count).await, 2, "each message once");
    browser.close().await;
    program.stop().await;
}
