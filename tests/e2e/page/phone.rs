//! The page on a phone: everything fits, nothing is cut, and rows are low.

use serde_json::json;

use super::{is_content, visit};
use crate::harness::browser::{Browser, Look};
use crate::harness::{TestApp, run};

/// Tallest entry of the history without a long memo, in CSS pixels: three lines.
const ROW_MAX: f64 = 90.0;
/// The same with one more line, which a date has beside the largest balances.
const LARGE_ROW_MAX: f64 = 112.0;
/// The same on the narrowest window, where the memo has a line of its own too.
const NARROW_ROW_MAX: f64 = 134.0;

/// Amounts and cells that something cuts off, or that are beyond the window.
const CUT: &str = "
    const cut = [];
    for (const element of document.querySelectorAll('#balance, #history td, main :is(span, p).number')) {
        const { left, right, width } = element.getBoundingClientRect();
        if (width === 0) continue;
        const isScrolled = element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1;
        let isOutside = left < 0 || right > innerWidth;
        for (let around = element.parentElement; around; around = around.parentElement) {
            const box = around.getBoundingClientRect();
            isOutside ||= left < box.left - 1 || right > box.right + 1;
        }
        if (isScrolled || isOutside) cut.push(element.textContent);
    }
    return cut;";

const ROW_HEIGHTS: &str = "
    return [...document.querySelectorAll('#history tr')]
        .filter((row) => !row.textContent.includes('xxx'))
        .map((row) => row.offsetHeight);";

/// Wallets with the longest balances and texts that there are.
async fn long(app: &TestApp) {
    for (owner, currency, balance) in [
        ("Ada Lovelace", "EUR", "12345678.90"),
        ("Grace Hopper of the United States Navy and of Yale", "EUR", "9999999999.99"),
        ("Cold-storage-that-has-a-name-without-any-space", "BTC", "9999.12345678"),
    ] {
        let body = json!({ "owner": owner, "currency": currency, "initial_balance": balance });
        assert_eq!(app.post("/wallet", body).await.status, 201);
    }
    let other = app.open_wallet("EUR", "0").await;
    for memo in ["coffee", &"x".repeat(30)] {
        let body = json!({ "from": "1", "to": other, "amount": "1234567.89", "memo": memo });
        assert_eq!(app.post("/wallet/transfer", body).await.status, 201);
    }
    let hold = json!({ "id": "1", "amount": "2345678.90", "memo": "x".repeat(60) });
    assert_eq!(app.post("/wallet/hold", hold).await.status, 201);
}

async fn assert_fits(browser: &Browser, look: Look, what: &str) {
    browser.assert_readable(look, what).await;
    assert_eq!(browser.run(CUT).await, json!([]), "{what}, {look:?}");
}

#[tokio::test]
async fn nothing_is_cut_and_rows_are_low_on_a_phone() {
    run(async |app| {
        long(app).await;
        for look in [Look::Phone, Look::Narrow] {
            let browser = visit(app, look).await;
            for (wallet, currency, max) in
                [("1", "EUR", ROW_MAX), ("2", "EUR", LARGE_ROW_MAX), ("3", "BTC", LARGE_ROW_MAX)]
            {
                browser.open(&format!("http://{}/#wallet={wallet}", app.address)).await;
                browser.see("#balance", currency).await;
                browser.see("#history", "Deposit").await;
                assert_fits(&browser, look, &format!("wallet {wallet}")).await;
                let heights = browser.run(ROW_HEIGHTS).await;
                let heights = heights.as_array().unwrap();
                let max = if look == Look::Narrow { NARROW_ROW_MAX } else { max };
                assert!(heights.len() >= 2);
                assert!(heights.iter().all(|height| height.as_f64().unwrap() < max), "{heights:?}");
            }
            browser.run("for (const details of document.querySelectorAll('.action')) details.open = true").await;
            assert_fits(&browser, look, "with all forms").await;
            browser.open(&format!("http://{}/#wallet=1", app.address)).await;
            browser.see("#holds", "2\u{202f}345\u{202f}678.90 EUR").await;
            browser.click("#holds [aria-label^=Capture]").await;
            browser.see("#capture-left", "can be captured").await;
            assert_fits(&browser, look, "a dialog").await;
            is_content(&browser).await;
            browser.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_wallet_that_is_selected_comes_into_view_on_a_phone() {
    run(async |app| {
        for _ in 0..3 {
            app.open_wallet("EUR", "10").await;
        }
        let browser = visit(app, Look::Phone).await;
        browser.see("#wallets", "#3").await;

        browser.click("#wallets [data-id='3']").await;

        browser.see("#wallet-title", "#3").await;
        browser.see("#history", "Deposit").await;
        let is_visible = "
            const { top, bottom } = document.querySelector('#wallet-title').getBoundingClientRect();
            return top >= 0 && bottom <= innerHeight;";
        assert_eq!(browser.run(is_visible).await, true);
        let closed =
            "return [...document.querySelectorAll('.action')].filter(({ open }) => open).length";
        assert_eq!(browser.run(closed).await, 0, "forms leave the view to the history");
        browser.close().await;
    })
    .await;
}
