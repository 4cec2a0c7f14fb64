//! Holds on the page: place, capture in part and whole, and release.

use super::{ENTER, has_focus, is_content, visit};
use crate::harness::browser::Look;
use crate::harness::run;

#[tokio::test]
async fn a_hold_is_placed_captured_in_parts_and_the_rest_is_released() {
    run(async |app| {
        let (wallet, shop) =
            (app.open_wallet("EUR", "100").await, app.open_wallet("EUR", "0").await);
        let browser = visit(app, Look::Desktop).await;
        browser.open(&format!("http://{}/#wallet={wallet}", app.address)).await;
        browser.see("#no-holds", "No holds yet.").await;

        browser.write("#hold [name=amount]", "60").await;
        browser.write("#hold [name=memo]", "room <b>12</b>").await;
        browser.click("#hold button").await;
        browser.see("#say", "Placed hold").await;
        browser.see("#holds li:first-child", "60.00 EUR").await;
        browser.see("#holds li:first-child", "room <b>12</b>").await;
        browser.see("#parts", "40.00 available, 60.00 on hold.").await;

        // A part, for another wallet; the rest stays on hold.
        browser.click("#holds [aria-label^='Capture hold']").await;
        browser.see("#capture-left", "60.00 EUR can be captured.").await;
        browser.write("#capture [name=amount]", "60.01").await;
        browser.write("#capture [name=to]", &shop).await;
        browser.click("#capture [name=keep]").await;
        browser.click("#capture .button").await;
        browser.see("#capture .problem", "60.00").await;
        browser.write("#capture [name=amount]", "25.50").await;
        browser.click("#capture .button").await;
        browser.see("#say", &format!("for wallet #{shop}")).await;
        browser.see("#holds li:first-child", "25.50 captured, 34.50 left").await;
        has_focus(&browser, "holds-title").await;
        assert_eq!(app.get(&format!("/wallet/{shop}")).await.json()["balance"], 25.5);

        // A part that leaves the system; the rest is released.
        browser.click("#holds [aria-label^='Capture hold']").await;
        browser.see("#capture-left", "34.50 EUR can be captured.").await;
        browser.write("#capture [name=amount]", "4.50").await;
        browser.click("#capture .button").await;
        browser.see("#holds li:first-child", "30.00 captured, 30.00 released").await;
        browser.see("#holds li:first-child .badge", "captured").await;
        browser.see("#balance", "70.00 EUR").await;
        browser.see("#parts", "Fully available.").await;
        assert_eq!(browser.text("#holds button").await, "", "what is over offers no action");
        is_content(&browser).await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_hold_is_captured_whole_or_released_by_keyboard() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        for amount in [10, 20] {
            let body = serde_json::json!({ "id": wallet, "amount": amount });
            assert_eq!(app.post("/wallet/hold", body).await.status, 201);
        }
        let browser = visit(app, Look::Desktop).await;
        browser.open(&format!("http://{}/#wallet={wallet}", app.address)).await;
        browser.see("#parts", "70.00 available, 30.00 on hold.").await;
        browser.see("#holds li:nth-child(2)", "10.00 EUR").await;

        browser.run("document.querySelector('#holds li:nth-child(2) button').focus()").await;
        browser.press(ENTER).await;
        browser.see("#capture-left", "10.00 EUR can be captured.").await;
        assert_eq!(browser.run("return document.activeElement.name").await, "amount");
        browser.press(ENTER).await;
        browser.see("#parts", "70.00 available, 20.00 on hold.").await;
        has_focus(&browser, "holds-title").await;

        // An answer that is lost: the same click again is the same request.
        browser.lose_next_answer().await;
        browser
            .run("document.querySelector('#holds li:first-child [aria-label^=Release]').focus()")
            .await;
        browser.press(ENTER).await;
        browser.see("#say.bad", "Cannot reach the server").await;
        browser.press(ENTER).await;
        browser.see("#say", "Released hold").await;
        browser.see("#parts", "Fully available.").await;
        browser.see("#balance", "90.00 EUR").await;
        browser.see("#holds li:first-child .badge", "released").await;
        has_focus(&browser, "holds-title").await;
        is_content(&browser).await;
        browser.close().await;
    })
    .await;
}
