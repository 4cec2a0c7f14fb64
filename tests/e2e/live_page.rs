//! The page at `/live` in Chromium: both game events, a reconnect, and the keyboard.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::harness::browser::{ACCESSIBLE, Browser, Look};
use crate::harness::program::{Folder, Program};
use crate::harness::{Client, free_address, run};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

async fn deposit(client: &Client, user: &str, cents: i64) {
    let body = json!({ "userId": user, "amount": cents });
    let response = client.post("/api/wallet/deposit", body).await;
    assert_eq!(response.status, 200, "{}", response.text);
}

/// Takes a screenshot and, with `BLESS` set, writes it to `docs/screenshots`.
async fn picture(browser: &Browser, name: &str) {
    let image = browser.screenshot().await;
    assert!(image.len() > 10_000, "there is something to see");
    if std::env::var_os("BLESS").is_some() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/screenshots");
        std::fs::write(folder.join(name), image).unwrap();
    }
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
        picture(&browser, "live.png").await;

        browser.click("#leaderboard-btn").await;
        browser.see("#current", "Currently in the game event: Leaderboard").await;
        browser.see("#messages .change", "Changed to the game event: Leaderboard").await;
        deposit(app, "<b>bob</b>", 20_000).await;
        browser.see("#messages", "User <b>bob</b> is leading the game with 200.00 amount").await;

        // Back by keyboard alone.
        browser.run("document.querySelector('#leaderboard-btn').focus()").await;
        browser.press(&format!("{TAB}{ENTER}")).await;
        browser.see("#current", "Game progress").await;
        let mut log = browser.console().await;
        // The page shows no leaders where there is no board.
        log.retain(|line| !line["message"].as_str().unwrap().contains("/api/leaderboard"));
        assert!(log.is_empty(), "{log:?}");
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

            let fits = "return document.documentElement.scrollWidth <= innerWidth";
            assert_eq!(browser.run(fits).await, Value::Bool(true), "{look:?}");
            assert_eq!(browser.run(ACCESSIBLE).await, json!([]), "{look:?}");
            let dark = "return matchMedia('(prefers-color-scheme: dark)').matches";
            assert_eq!(browser.run(dark).await, look == Look::Dark);
            assert_eq!(axe_violations(&browser).await, json!([]), "{look:?}");
            if let Some(name) = name {
                picture(&browser, name).await;
            }
            browser.close().await;
        }
    })
    .await;
}

/// Returns the script of axe-core.
fn axe() -> &'static str {
    static AXE: OnceLock<String> = OnceLock::new();
    AXE.get_or_init(|| {
        let mut bash = std::process::Command::new("bash");
        bash.args(["-c", "source scripts/lib/setup.sh && axe_npm_tools"]);
        let output = bash.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "axe-core is not available: {stderr}");
        let folder = String::from_utf8(output.stdout).unwrap();
        let path = format!("{}/node_modules/axe-core/axe.min.js", folder.trim());
        std::fs::read_to_string(path).unwrap()
    })
}

/// Returns the serious findings of axe-core.
async fn axe_violations(browser: &Browser) -> Value {
    let axe = axe();
    let script = "
        return axe.run().then(({ violations }) => violations
            .filter(({ impact }) => impact === 'serious' || impact === 'critical')
            .map(({ id, nodes }) => [id, ...nodes.map((node) => node.html)]));";
    browser.run(&format!("{axe};{script}")).await
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
