//! The history on the page: refunds, and the trace of each entry.

use serde_json::json;
use url::Url;

use super::{ENTER, has_focus, is_content, visit};
use crate::harness::browser::{Browser, Look};
use crate::harness::{TestApp, eventually, run, run_with};

const ESCAPE: &str = "\u{e00c}";

/// Transfers 10.00 to another wallet, and shows the first one.
async fn paid(app: &TestApp, browser: &Browser) -> (String, String) {
    let (from, to) = (app.open_wallet("EUR", "100").await, app.open_wallet("EUR", "0").await);
    let body = json!({ "from": from, "to": to, "amount": "10.00", "memo": "coffee" });
    assert_eq!(app.post("/wallet/transfer", body).await.status, 201);
    browser.open(&format!("http://{}/#wallet={from}", app.address)).await;
    browser.see("#history tr:first-child", "coffee").await;
    (from, to)
}

#[tokio::test]
async fn a_transfer_is_refunded_in_parts_and_no_more_than_it_moved() {
    run(async |app| {
        let browser = visit(app, Look::Desktop).await;
        let (from, to) = paid(app, &browser).await;
        let refund = "#history tr:first-child [aria-label^='Refund transfer']";

        browser.click(refund).await;
        browser.see("#refund-left", "All of 10.00 EUR can be refunded.").await;
        browser.write("#refund [name=amount]", "10.01").await;
        browser.click("#refund .button").await;
        browser.see("#refund .problem", "10.00 is left to refund.").await;
        browser.write("#refund [name=amount]", "4").await;
        browser.click("#refund .button").await;
        browser.see("#say", "Refunded 4.00 EUR of transfer").await;
        browser.see("#balance", "94.00 EUR").await;
        browser.see("#history tr:first-child .entry", &format!("Refund from #{to}")).await;
        has_focus(&browser, "history-title").await;
        assert_eq!(browser.text(refund).await, "", "a refund is final");

        // The rest, from the wallet that received it, by keyboard.
        browser.open(&format!("http://{}/#wallet={to}", app.address)).await;
        browser.see("#history tr:nth-child(2) .entry", &format!("from #{from}")).await;
        browser
            .run("document.querySelector('#history tr:nth-child(2) [aria-label^=Refund]').focus()")
            .await;
        browser.press(ENTER).await;
        browser.see("#refund-left", "6.00 EUR of 10.00 EUR can still be refunded.").await;
        browser.press(ESCAPE).await;
        eventually("the dialog is closed", async || browser.text("#refund-left").await.is_empty())
            .await;
        let label = "return document.activeElement.getAttribute('aria-label') ?? ''";
        eventually("the button has the focus again", async || {
            browser.run(label).await.as_str().unwrap().starts_with("Refund transfer")
        })
        .await;
        browser.press(ENTER).await;
        browser.see("#refund-left", "6.00 EUR of 10.00 EUR").await;
        browser.press(ENTER).await;
        browser.see("#balance", "0.00 EUR").await;
        assert_eq!(app.get(&format!("/wallet/{from}")).await.json()["balance"], 100.0);
        browser.see("#history tr:nth-child(3)", "Refund").await;
        browser.click("#history tr:nth-child(3) [aria-label^='Refund transfer']").await;
        browser.see("#say", "is refunded already.").await;
        is_content(&browser).await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_trace_of_each_entry_can_be_copied() {
    run(async |app| {
        let browser = visit(app, Look::Desktop).await;
        let (from, _) = paid(app, &browser).await;
        let history = app.get(&format!("/wallet/{from}/history")).await.json();
        let buttons =
            "return document.querySelectorAll('#history [aria-label^=\"Copy trace ID\"]').length";
        assert_eq!(browser.run(buttons).await, history.as_array().unwrap().len());

        // Also where the page is not served over HTTPS, and the browser has no clipboard API.
        for (row, setup) in
            [(0, ""), (1, "Object.defineProperty(navigator, 'clipboard', { value: undefined })")]
        {
            browser.run(setup).await;
            let trace = history[row]["trace_id"].as_str().unwrap();
            browser
                .click(&format!("#history tr:nth-child({}) [aria-label^='Copy trace']", row + 1))
                .await;
            browser.see("#say", &format!("Copied {trace}.")).await;
            // Control and V.
            browser.write("#transfer [name=memo]", "\u{e009}v").await;
            let pasted = "return document.querySelector('#transfer [name=memo]').value";
            assert_eq!(browser.run(pasted).await, trace);
        }
        is_content(&browser).await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn where_grafana_is_known_each_entry_links_to_its_trace() {
    run_with(&["--grafana-url=/grafana"], async |app| {
        let browser = visit(app, Look::Desktop).await;
        let (from, _) = paid(app, &browser).await;
        let history = app.get(&format!("/wallet/{from}/history")).await.json();
        let links = browser
            .run("return [...document.querySelectorAll('#history a')].map((link) => link.href)")
            .await;
        let links = links.as_array().unwrap();
        assert_eq!(links.len(), history.as_array().unwrap().len());

        for (link, entry) in links.iter().zip(history.as_array().unwrap()) {
            let url = Url::parse(link.as_str().unwrap()).unwrap();
            assert_eq!(url.authority(), app.address.to_string());
            assert_eq!(url.path(), "/grafana/explore");
            let (_, panes) = url.query_pairs().find(|(name, _)| name == "panes").unwrap();
            let panes: serde_json::Value = serde_json::from_str(&panes).unwrap();
            let query = &panes["trace"]["queries"][0];
            assert_eq!(query["query"], entry["trace_id"]);
            assert_eq!(query["datasource"]["uid"], "tempo");
        }
        assert_eq!(browser.text("#history tr:first-child a").await, "Trace");
        is_content(&browser).await;
        browser.close().await;
    })
    .await;
}
