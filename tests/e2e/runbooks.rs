//! The runbooks that the internal listener serves.

use std::collections::BTreeSet;

use reqwest::Method;

use crate::harness::alerts::runbook_paths;
use crate::harness::{Client, Response, run};

async fn get_page(internal: &Client, path: &str) -> Response {
    let page = internal.request(Method::GET, path).header("accept", "text/html,*/*;q=0.8");
    internal.send(page).await
}

#[tokio::test]
async fn every_alert_links_to_a_page() {
    run(async |app| {
        let paths = runbook_paths();
        assert!(paths.len() > 40, "{paths:?}");
        for path in paths {
            let page = get_page(&app.internal, &path).await;
            assert_eq!(
                (page.status, page.header("content-type")),
                (200, "text/html; charset=utf-8")
            );
            let name = path.rsplit('/').next().unwrap();
            assert!(page.text.contains(&format!("<h1 id=\"{}\">{name}</h1>", name.to_lowercase())));
            let policy = page.header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'; style-src 'self'; "), "{policy}");
            assert!(!page.text.contains("<script") && !page.text.contains(" style="), "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_link_of_a_runbook_leads_somewhere() {
    run(async |app| {
        let index = get_page(&app.internal, "/runbooks").await;
        let mut pages: BTreeSet<String> = hrefs(&index.text).collect();
        pages.retain(|path| path.starts_with("/runbooks/"));
        assert!(runbook_paths().is_subset(&pages), "the index lists every runbook: {pages:?}");
        for path in &pages {
            let page = get_page(&app.internal, path).await;
            assert_eq!(page.status, 200, "{path}");
            for link in hrefs(&page.text) {
                let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
                if target.starts_with("/runbooks") || target.is_empty() {
                    let target = if target.is_empty() { path } else { target };
                    let response = get_page(&app.internal, target).await;
                    assert_eq!(response.status, 200, "{path} links to {link}");
                    let id = format!(" id=\"{anchor}\"");
                    assert!(anchor.is_empty() || response.text.contains(&id), "{path}: {link}");
                } else {
                    let is_console = ["/grafana/", "/prometheus/", "https://"];
                    assert!(
                        is_console.iter().any(|start| link.starts_with(start)),
                        "{path}: {link}"
                    );
                }
            }
        }
    })
    .await;
}

fn hrefs(page: &str) -> impl Iterator<Item = String> {
    page.split(" href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned())
}

#[tokio::test]
async fn a_terminal_gets_the_text_and_the_public_listener_nothing() {
    run(async |app| {
        let text = app.internal.get("/runbooks/DatabaseDown").await;
        assert_eq!((text.status, text.header("content-type")), (200, "text/plain; charset=utf-8"));
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks");
        assert_eq!(
            text.text,
            std::fs::read_to_string(format!("{folder}/DatabaseDown.md")).unwrap()
        );
        assert!(app.internal.get("/runbooks").await.text.contains("\n- [EdgeDown](EdgeDown.md): "));

        app.internal.get("/runbooks/NoSuchAlert").await.problem(404, "not-found");
        for path in ["/runbooks", "/runbooks/DatabaseDown", "/runbooks/style.css"] {
            app.get(path).await.problem(404, "not-found");
        }
    })
    .await;
}

/// Statements are only planned, not executed.
#[tokio::test]
async fn every_statement_fits_the_schema() {
    run(async |app| {
        let mut db = app.database.connect().await;
        let mut count = 0;
        for path in runbook_paths() {
            let runbook = app.internal.get(&path).await.text;
            for block in runbook.split("```sql\n").skip(1) {
                let block = block.split("```").next().unwrap();
                for statement in block.split(';').map(str::trim).filter(|text| !text.is_empty()) {
                    let statement = statement.replace("(PID)", "(1)").replace("= N", "= 1");
                    let planned =
                        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("explain {statement}")));
                    let planned = planned.execute(&mut db).await;
                    assert!(planned.is_ok(), "{path}: {statement}: {}", planned.unwrap_err());
                    count += 1;
                }
            }
        }
        assert!(count > 20, "{count}");
    })
    .await;
}
