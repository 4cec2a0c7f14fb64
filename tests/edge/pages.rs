//! Pages of the edge in Chromium: they have our style, even if the API is unreachable.

use std::path::Path;

use serde_json::Value;

use crate::harness::browser::{Browser, Look};
use crate::harness::{eventually, free_address};
use crate::nginx::{Edge, nginx_versions, run_behind_nginx};

/// Asserts that the browser console is empty, content security policy included; error statuses are expected.
async fn assert_console_is_clean(browser: &Browser) {
    let complaints = browser.complaints("the server responded with a status of").await;
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// Asserts that style sheet and icon were loaded from the edge.
async fn assert_styled(browser: &Browser) {
    let script = "const card = document.querySelector('.card'), picture = document.querySelector('.top img');
        return [getComputedStyle(card).borderTopLeftRadius, picture.complete && picture.naturalWidth > 0,
            document.documentElement.scrollWidth <= innerWidth, document.documentElement.lang]";
    assert_eq!(browser.run(script).await, serde_json::json!(["12px", true, true, "en"]));
}

/// Takes a screenshot, and writes it to the folder in `PICTURES` if that is set.
async fn screenshot(browser: &Browser, name: &str) {
    let image = browser.screenshot().await;
    assert!(image.len() > 5_000, "the screenshot is empty");
    if let Some(folder) = std::env::var_os("PICTURES") {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(Path::new(&folder).join(name), image).unwrap();
    }
}

#[tokio::test]
async fn the_welcome_page_and_the_not_found_page_are_styled() {
    run_behind_nginx(&[], &[], async |_, edge| {
        for look in [Look::Desktop, Look::Dark, Look::Phone] {
            let browser = Browser::start(look).await;
            let url = |path: &str| format!("http://{}{path}", edge.public.address);
            browser.open(&url("/welcome")).await;
            browser.see("h1", "Welcome").await;
            assert_styled(&browser).await;
            screenshot(&browser, &format!("welcome-{look:?}.png")).await;
            browser.open(&url("/nope?secret=test-secret")).await;
            browser.see("h1", "Page not found").await;
            assert_styled(&browser).await;
            let shown = browser.text(".muted code").await;
            screenshot(&browser, &format!("not-found-{look:?}.png")).await;
            eventually("the request is logged with the trace id of the page", async || {
                let matches = |line: &Value| line["path"] == "/nope" && line["trace_id"] == shown;
                edge.lines().iter().any(matches)
            })
            .await;
            browser.click("main a").await;
            browser.see("#found", "No wallets yet").await;
            assert_console_is_clean(&browser).await;
            browser.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_unreachable_api_shows_a_styled_page() {
    for nginx in nginx_versions() {
        let edge =
            Edge::start(&nginx, &free_address().to_string(), &[("EDGE_GRAFANA", "127.0.0.1:1")])
                .await;
        let browser = Browser::start(Look::Desktop).await;
        for path in ["/", "/docs", "/problems"] {
            browser.open(&format!("http://{}{path}", edge.public.address)).await;
            browser.see("h1", "Service unavailable").await;
            assert_styled(&browser).await;
        }
        screenshot(&browser, "unavailable.png").await;
        assert_console_is_clean(&browser).await;
        browser.close().await;
        edge.stop().await;
    }
}
