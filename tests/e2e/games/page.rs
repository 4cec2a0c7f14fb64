//! The page at `/store` in Chromium: browse, buy, give, redeem, and the library.

use revwallet::auth::Scope;
use serde_json::json;

use super::offers::{put_sale, running};
use super::{accounts, add, buyer, cents, change, publisher, titles};
use crate::harness::browser::{Browser, Look};
use crate::harness::users::User;
use crate::harness::{Client, TestApp, eventually, run, run_with};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// A title that runs a script where it is read as HTML.
const HOSTILE: &str = "<img src=x onerror=\"document.body.textContent='hacked'\">";

/// Opens a view of the store.
pub(super) async fn show(app: &TestApp, browser: &Browser, view: &str) {
    browser.open(&format!("http://{}/store#{view}", app.address)).await;
}

pub(super) async fn visit(app: &TestApp, look: Look) -> Browser {
    let browser = Browser::start(look).await;
    show(app, &browser, "games").await;
    browser.see("#found", "g").await;
    browser
}

/// Signs in with the form, and waits until the balance is shown.
async fn sign_in(browser: &Browser, name: &str, user: &User) {
    browser.sign_in(name, user).await;
    browser.see("#balance", "EUR").await;
}

#[tokio::test]
async fn a_visitor_browses_searches_and_reads_without_a_credential() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let further = json!({ "prices": [{ "currency": "USD", "price": "21.99" }], "copies": 7 });
        let alpha = add(&store, "Alpha", "19.99", further).await;
        let hostile = json!({ "genre": "security", "description": HOSTILE });
        let hostile = add(&store, HOSTILE, "4.50", hostile).await;
        for n in 0..24 {
            add(&store, &format!("Filler {n}"), "0", json!({})).await;
        }
        put_sale(&store, alpha, "winter", running(&json!({ "percent": 20 }))).await;
        let browser = visit(app, Look::Desktop).await;

        browser.see("#found", "The first 24 games").await;
        browser.click("#more-games").await;
        browser.see("#found", "26 games").await;
        assert!(browser.text("#games li:nth-child(3)").await.contains("Free"));
        browser.write("#search [name=q]", "alp").await;
        browser.click("#search button").await;
        browser.see("#found", "1 game").await;
        browser.see("#games", "19.99").await;
        browser.write("#search [name=q]", "nothing like this").await;
        browser.click("#search button").await;
        browser.see("#found", "No game is found.").await;
        browser.write("#search [name=q]", "").await;
        browser.click("#search [name=sale]").await;
        browser.click("#search button").await;
        browser.see("#found", "1 game").await;

        browser.click("#games a").await;
        browser.see("#game-title", "Alpha").await;
        browser.see("#price", "15.99 EUR 19.99").await;
        browser.see("#price-sale", "On sale until").await;
        browser.see("#copies-left", "Copies left: 7").await;
        browser.see("#buy-sign-in", "Sign in to buy").await;
        assert_eq!(browser.text("#buy").await, "");
        assert_eq!(browser.run("return document.activeElement.id").await, "game-title");
        assert_eq!(browser.run("return document.title").await, "Alpha - revwallet");

        // What others wrote is text.
        show(app, &browser, &format!("game={hostile}")).await;
        browser.see("#game-title", HOSTILE).await;
        assert_eq!(browser.text("#game-description").await, HOSTILE);
        assert_eq!(browser.run("return document.querySelectorAll('main img').length").await, 0);
        let complaints = browser.complaints("no complaint is expected").await;
        assert!(complaints.is_empty(), "{complaints:?}");
        show(app, &browser, "game=999").await;
        browser.see("#say.bad", "There is no game with this id").await;
        browser.see("#games-title", "Games").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_user_buys_at_the_price_on_the_page_and_the_balance_follows() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "10").await;
        let further = json!({ "publisher": nova, "prices": [{ "currency": "JPY", "price": 900 }] });
        let id = add(&store, "Alpha", "19.99", further).await;
        put_sale(&store, id, "winter", running(&json!({ "percent": 20 }))).await;
        let ada = buyer(app, "ada", 123_456).await;
        let browser = visit(app, Look::Desktop).await;
        show(app, &browser, &format!("game={id}")).await;
        browser.see("#game-title", "Alpha").await;

        sign_in(&browser, "ada", &ada).await;
        // Back at the game.
        browser.see("#buy button", "Buy for 15.99 EUR").await;
        browser.see("#balance", "1\u{202f}234.56 EUR").await;
        browser.see("#buy-balance", "Your wallet has 1\u{202f}234.56 EUR.").await;
        let pay_in = "
            const select = document.querySelector('#buy [name=currency]');
            select.value = arguments[0];
            select.dispatchEvent(new Event('change'));";
        browser.run(&pay_in.replace("arguments[0]", "'JPY'")).await;
        browser.see("#buy button", "Buy for 720 JPY").await;
        browser.see("#buy-balance", "Your wallet has 0 JPY.").await;
        browser.click("#buy button").await;
        browser.see("#buy .problem", "0 is available, 720 is required").await;
        browser.run(&pay_in.replace("arguments[0]", "'EUR'")).await;
        browser.click("#buy button").await;
        browser.see("#say", "Alpha is yours. Charged 15.99 EUR.").await;

        browser.see("#balance", "1\u{202f}218.57 EUR").await;
        browser.see("#buy-balance", "1\u{202f}218.57 EUR").await;
        browser.see("#owned", "In your library").await;
        assert_eq!(cents(&ada).await, 121_857);
        // A tenth for the house, the rest for the publisher.
        assert_eq!(accounts(app, &nova).await, [160, 0, 1_439]);
        browser.click(".tabs a[href='#library']").await;
        browser.see("#library", "Alpha").await;
        browser.click("#sign-out").await;
        browser.see("#library-sign-in", "Sign in as a user").await;
        assert_eq!(browser.text("#library").await, "");
        let complaints = browser.complaints("status of 422").await;
        assert!(complaints.is_empty(), "{complaints:?}");
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn where_access_is_closed_anyone_browses_and_users_buy() {
    run_with(&["--access=closed"], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "19.99", json!({})).await;
        let ada = buyer(app, "ada", 5_000).await;
        let browser = visit(app, Look::Desktop).await;
        browser.see("#found", "1 game").await;
        show(app, &browser, &format!("game={id}")).await;
        browser.see("#buy-sign-in", "Sign in to buy").await;

        sign_in(&browser, "ada", &ada).await;
        browser.see("#balance", "50.00 EUR").await;
        browser.see("#buy button", "Buy for 19.99 EUR").await;
        browser.click("#buy button").await;
        browser.see("#say", "Alpha is yours. Charged 19.99 EUR.").await;
        browser.see("#balance", "30.01 EUR").await;
        browser.click(".tabs a[href='#library']").await;
        browser.see("#library", "Alpha").await;

        assert_eq!(cents(&ada).await, 3_001);
        let complaints = browser.complaints("no complaint is expected").await;
        assert!(complaints.is_empty(), "{complaints:?}");
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn another_price_is_shown_and_charged_only_after_another_press() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10.00", json!({})).await;
        let ada = buyer(app, "ada", 5_000).await;
        let bob = app.user("bob").await;
        let browser = visit(app, Look::Desktop).await;
        sign_in(&browser, "ada", &ada).await;
        show(app, &browser, &format!("game={id}")).await;
        browser.see("#buy button", "Buy for 10.00 EUR").await;
        assert_eq!(change(&store, id, json!({ "price": "12.50" })).await.status, 200);

        browser.click("#buy button").await;
        browser.see("#say", "The price is now 12.50 EUR. Nothing was charged").await;
        browser.see("#price", "12.50 EUR").await;
        browser.see("#buy button", "Buy for 12.50 EUR").await;
        assert_eq!((cents(&ada).await, titles(&ada).await.len()), (5_000, 0));
        browser.click("#buy button").await;
        browser.see("#say", "Alpha is yours. Charged 12.50 EUR.").await;
        assert_eq!(cents(&ada).await, 3_750);

        // A discount code: its price is shown before it is charged, and a gift is for the other user.
        let code = json!({ "code": "WINTER10", "percent": 10 });
        assert_eq!(store.post("/api/codes", code).await.status, 201);
        browser.see("#buy button", "Buy as a gift for 12.50 EUR").await;
        browser.write("#buy [name=code]", "winter10").await;
        browser.write("#buy [name=gift_to]", &bob.id).await;
        browser.click("#buy button").await;
        browser.see("#say", "With the code winter10 the price is 11.25 EUR.").await;
        browser.see("#price", "11.25 EUR 12.50").await;
        assert_eq!(cents(&ada).await, 3_750);
        browser.click("#buy button").await;
        let given = format!("Alpha was given to user {}. Charged 11.25 EUR.", bob.id);
        browser.see("#say", &given).await;
        assert_eq!(cents(&ada).await, 2_625);
        assert_eq!(titles(&bob).await, ["Alpha"]);
        browser.see("#price", "12.50 EUR").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_purchase_whose_answer_was_lost_is_sent_again_and_charged_once() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10.00", json!({})).await;
        let ada = buyer(app, "ada", 5_000).await;
        let browser = visit(app, Look::Desktop).await;
        sign_in(&browser, "ada", &ada).await;
        show(app, &browser, &format!("game={id}")).await;
        browser.see("#buy button", "Buy for 10.00 EUR").await;
        browser.lose_next_answer().await;

        browser.click("#buy button").await;
        browser.see("#buy .problem", "Cannot reach the server").await;
        eventually("the request has arrived", async || cents(&ada).await == 4_000).await;
        browser.click("#buy button").await;
        browser.see("#say", "Alpha is yours. Charged 10.00 EUR.").await;
        assert_eq!(cents(&ada).await, 4_000);
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_activation_key_is_redeemed_into_the_library() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10.00", json!({})).await;
        let made = store.post(&format!("/api/games/{id}/keys"), json!({ "count": 2 })).await.json();
        let [key, used] = [0, 1].map(|n| made["keys"][n]["key"].as_str().unwrap().to_owned());
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);
        assert_eq!(bob.post("/api/games/redeem", json!({ "key": used })).await.status, 200);
        let browser = visit(app, Look::Desktop).await;
        sign_in(&browser, "ada", &ada).await;
        browser.click(".tabs a[href='#library']").await;
        browser.see("#no-library", "You own no games yet.").await;

        for (key, refusal) in [
            ("AAAAA-AAAAA-AAAAA-AAAAA-AAAAA", "There is no such activation key"),
            (&used, "The activation key was already redeemed"),
        ] {
            browser.write("#redeem [name=key]", key).await;
            browser.click("#redeem button").await;
            browser.see("#redeem .problem", refusal).await;
        }
        browser.write("#redeem [name=key]", &key.to_lowercase()).await;
        browser.click("#redeem button").await;
        browser.see("#say", "Alpha is in your library.").await;
        browser.see("#library", "Alpha").await;

        assert_eq!(titles(&ada).await, ["Alpha"]);
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_over_leaves_a_page_that_works() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10.00", json!({})).await;
        let ada = buyer(app, "ada", 5_000).await;
        let browser = visit(app, Look::Desktop).await;
        sign_in(&browser, "ada", &ada).await;
        let token = browser.run("return sessionStorage.getItem('revwallet.key')").await;
        let session = Client::new(app.address).with_credential(token.as_str().unwrap());
        assert_eq!(session.post("/api/users/logout", json!({})).await.status, 200);

        show(app, &browser, &format!("game={id}")).await;
        browser.see("#say.bad", "The session is over").await;
        browser.see("#game-title", "Alpha").await;
        browser.see("#buy-sign-in", "Sign in to buy").await;
        browser.see("#sign-in-link", "Sign in").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_game_is_bought_by_keyboard() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        add(&store, "Alpha", "10.00", json!({})).await;
        let ada = buyer(app, "ada", 5_000).await;
        let browser = visit(app, Look::Desktop).await;
        let reach = async |what: &str, script: &str| {
            for _ in 0..20 {
                if browser.run(&format!("return {script}")).await == true {
                    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
                    assert_ne!(browser.run(outline).await, "none", "the focus is visible: {what}");
                    return;
                }
                browser.press(TAB).await;
            }
            panic!("{what} is not reached");
        };

        reach("the link", "document.activeElement.id === 'sign-in-link'").await;
        browser.press(ENTER).await;
        browser.see("#sign-in-title", "Sign in").await;
        reach("the name", "document.activeElement.name === 'username'").await;
        browser.press(&format!("ada{TAB}{}{ENTER}", ada.password)).await;
        browser.see("#balance", "50.00 EUR").await;
        browser.see("#games", "Alpha").await;
        reach("the game", "document.activeElement.closest('#games a') !== null").await;
        browser.press(ENTER).await;
        browser.see("#buy button", "Buy for 10.00 EUR").await;
        reach("the button", "document.activeElement.closest('#buy .button') !== null").await;
        browser.press(ENTER).await;
        browser.see("#say", "Alpha is yours. Charged 10.00 EUR.").await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_store_can_be_read_on_a_desk_in_the_dark_and_on_a_phone() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let further = json!({
            "prices": [{ "currency": "USD", "price": "21.99" }], "copies": 1000,
            "description": "Slide tiles until they make a picture.\n\nTwo hundred levels.",
        });
        let alpha = add(&store, "Alpha", "19.99", further).await;
        put_sale(&store, alpha, "winter", running(&json!({ "percent": 20 }))).await;
        let long = "A-Title-That-Has-To-Be-Broken-Somewhere-".repeat(4);
        for (title, price) in [(HOSTILE, "4.50"), ("Harbor Lights", "0"), (&long, "1234567.89")] {
            add(&store, title, price, json!({})).await;
        }
        let ada = buyer(app, "ada", 12_345_678_900).await;
        // The free one.
        assert_eq!(super::buy(&ada, alpha + 2, json!({})).await.status, 201);
        for (look, picture) in [
            (Look::Desktop, Some("store.png")),
            (Look::Dark, Some("store-dark.png")),
            (Look::Phone, Some("store-phone.png")),
            (Look::Narrow, None),
        ] {
            let browser = visit(app, look).await;
            browser.see("#found", "4 games").await;
            browser.assert_readable(look, "games").await;
            sign_in(&browser, "ada", &ada).await;
            for (view, css, text) in [
                (format!("game={}", alpha + 3), "#game-title", &long as &str),
                (format!("game={}", alpha + 2), "#owned", "In your library"),
                ("library".to_owned(), "#library", "Harbor Lights"),
                ("sign-in".to_owned(), "#sign-in-title", "Sign in"),
                (format!("game={alpha}"), "#buy-balance", "Your wallet has"),
            ] {
                show(app, &browser, &view).await;
                browser.see(css, text).await;
                browser.assert_readable(look, &view).await;
            }
            if let Some(picture) = picture {
                browser.run("document.activeElement.blur(); document.querySelector('#say').hidden = true").await;
                browser.picture(picture).await;
            }
            browser.close().await;
        }
    })
    .await;
}
