//! The edge's own pages, in a real Chromium: they look like ours, also when nothing of ours answers.

use std::path::Path;

use serde_json::Value;

use crate::harness::browser::{Browser, Look};
use crate::harness::{eventually, free_address};
use crate::nginx::{Edge, behind, each};

/// Nothing was complained about, the policy included. That a page was not found is what it tells.
async fn is_content(browser: &Browser) {
    let log = browser.console().await;
    let complaints: Vec<_> = log
        .iter()
        .filter(|line| {
            !line["message"].as_str().unwrap().contains("the server responded with a status of")
        })
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// The style came from the edge, and the picture as well.
async fn is_dressed(browser: &Browser) {
    let script = "const card = document.querySelector('.card'), picture = document.querySelector('.top img');
        return [getComputedStyle(card).borderTopLeftRadius, picture.complete && picture.naturalWidth > 0,
            document.documentElement.scrollWidth <= innerWidth, document.documentElement.lang]";
    assert_eq!(browser.run(script).await, serde_json::json!(["12px", true, true, "en"]));
}

async fn picture(browser: &Browser, name: &str) {
    let image = browser.screenshot().await;
    assert!(image.len() > 5_000, "there is something to see");
    if let Some(folder) = std::env::var_os("PICTURES") {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(Path::new(&folder).join(name), image).unwrap();
    }
}

#[tokio::test]
async fn a_person_is_welcomed_and_told_what_is_not_there() {
    behind(&[], &[], async |_, edge| {
        for look in [Look::Desktop, Look::Dark, Look::Phone] {
            let browser = Browser::start(look).await;
            let url = |path: &str| format!("http://{}{path}", edge.public.address);
            browser.open(&url("/welcome")).await;
            browser.see("h1", "Welcome").await;
            is_dressed(&browser).await;
            picture(&browser, &format!("welcome-{look:?}.png")).await;
            browser.open(&url("/nope?secret=planted")).await;
            browser.see("h1", "Page not found").await;
            is_dressed(&browser).await;
            let shown = browser.text(".muted code").await;
            picture(&browser, &format!("not-found-{look:?}.png")).await;
            eventually("the access log tells of it", async || {
                let is_it = |line: &Value| line["path"] == "/nope" && line["trace_id"] == shown;
                edge.lines().iter().any(is_it)
            })
            .await;
            browser.click("main a").await;
            browser.see("#no-wallets", "No wallets yet").await;
            is_content(&browser).await;
            browser.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_person_sees_a_page_of_ours_when_the_service_is_gone() {
    for nginx in each() {
        let edge =
            Edge::start(&nginx, &free_address().to_string(), &[("EDGE_GRAFANA", "127.0.0.1:1")])
                .await;
        let browser = Browser::start(Look::Desktop).await;
        for path in ["/", "/docs", "/problems"] {
            browser.open(&format!("http://{}{path}", edge.public.address)).await;
            browser.see("h1", "Service unavailable").await;
            is_dressed(&browser).await;
        }
        picture(&browser, "unavailable.png").await;
        is_content(&browser).await;
        browser.close().await;
        edge.stop().await;
    }
}
