//! The routes `/runbooks`: the runbooks that alerts link to, as HTML for browsers and as Markdown for other clients.
//!
//! The internal listener serves the runbooks, because it responds even if the database is down. Through nginx,
//! operators can reach `/runbooks`, but no other path of the internal listener.

use std::fmt::Write;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, header};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};

use crate::error::{Error, Result};
use crate::http::extract::Path;

/// Content security policy of the pages: the browser loads only the style sheet, and runs no scripts.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'none'; base-uri 'none'; \
     frame-ancestors 'none'";

const STYLE: &str = concat!(include_str!("../web/style.css"), include_str!("runbooks.css"));

/// Heading of the section in which a runbook explains its alert.
const MEANING: &str = "## What it means\n\n";

/// A Markdown document that is compiled into the program.
struct Document {
    name: &'static str,
    text: &'static str,
}

macro_rules! runbooks {
    ($($name:literal)*) => {
        [$(Document {
            name: $name,
            text: include_str!(concat!("../../docs/runbooks/", $name, ".md")),
        }),*]
    };
}

const RUNBOOKS: [Document; 47] = runbooks! {
    "BookReaderLag" "CodesGuessed" "CredentialInLogs" "DatabaseDown" "DeadLetters" "DiskFillsIn4h" "EdgeDown"
    "EmbeddedPostgresRestarted" "ErrorBudgetBurn" "ErrorsLogged" "HotWalletShort" "JobsWaiting" "LedgerAuditorStale"
    "LedgerFollowerAlone" "LedgerInvariantViolated" "LedgerPartitionMissing" "LedgerQueueNearCapacity" "LedgerWriterStalled"
    "LogLinesDiscarded" "LogLinesDropped" "LogPipelineLossy" "LoginFailureSpike" "LongTransactions" "NotificationsFailing"
    "OrderNotificationsFailing" "OrdersOfUnknownVersion" "OrdersStalled" "OrdersStuck" "OrdersUnknown" "PanicCaught"
    "PoolExhausted" "PrizesUnpaid" "ProbeFailing" "PublisherInDebt" "ReadReplicaUnused" "RefundSpike" "ReplicationSlotLag"
    "RequestsTurnedAway" "RulesFailing" "SeasonOverdue" "SeriesNearBudget" "TargetMissing" "TraceSpansDiscarded"
    "WalArchiveFailing" "WebSocketClientsSlow" "WebSocketsRefused" "WebhooksFailing"
};

/// The operator's manual, to which the runbooks link for longer procedures such as a restore.
const MANUAL: Document =
    Document { name: "operations", text: include_str!("../../docs/operations.md") };

pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/runbooks", get(list_runbooks))
        .route("/runbooks/style.css", get(style))
        .route("/runbooks/{name}", get(get_runbook))
}

async fn style() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "private, max-age=60"),
    ];
    (headers, STYLE).into_response()
}

async fn list_runbooks(headers: HeaderMap) -> Response {
    let mut text =
        String::from("# Runbooks\n\nEach alert links to the runbook with the same name.\n\n");
    for Document { name, text: runbook } in &RUNBOOKS {
        // Writing to a String cannot fail.
        let _written = writeln!(text, "- [{name}]({name}.md): {}", meaning(runbook));
    }
    let name = MANUAL.name;
    let _written =
        writeln!(text, "\nThe [manual]({name}.md) covers backups, restores and upgrades.");
    respond(&headers, "Runbooks", &text)
}

async fn get_runbook(Path(name): Path<String>, headers: HeaderMap) -> Result<Response> {
    let document = find(&name).ok_or(Error::NotFound("runbook"))?;
    Ok(respond(&headers, document.name, document.text))
}

fn find(name: &str) -> Option<&'static Document> {
    RUNBOOKS.iter().chain([&MANUAL]).find(|document| document.name == name)
}

/// Returns the first line of the section that explains the alert.
fn meaning(runbook: &str) -> &str {
    let section = runbook.split(MEANING).nth(1).unwrap_or_default();
    section.lines().next().unwrap_or_default()
}

/// Responds with an HTML page if the client accepts HTML, and with the Markdown text otherwise.
fn respond(headers: &HeaderMap, title: &str, markdown: &str) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (content_type, body) = if accept.is_some_and(|accept| accept.contains("text/html")) {
        ("text/html; charset=utf-8", page(title, markdown))
    } else {
        ("text/plain; charset=utf-8", markdown.to_owned())
    };
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept"),
    ];
    (headers, body).into_response()
}

fn page(title: &str, markdown: &str) -> String {
    let mut article = String::new();
    html::push_html(&mut article, with_targets(markdown).into_iter());
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} - revwallet</title><link rel=\"stylesheet\" href=\"/runbooks/style.css\"></head>\
         <body><main><nav><a href=\"/runbooks\">All runbooks</a> <a href=\"/grafana/\">Grafana</a> \
         <a href=\"/prometheus/alerts\">Alerts</a></nav>{article}</main></body></html>"
    )
}

/// Parses Markdown and adapts it to this server: headings get ids, links to other documents get the paths of this
/// server, and links to files that the server does not have become plain text.
fn with_targets(markdown: &str) -> Vec<Event<'_>> {
    let mut events: Vec<Event<'_>> = Parser::new_ext(markdown, Options::ENABLE_TABLES).collect();
    for at in 0..events.len() {
        let heading = text_until_end(&events[at..]);
        if let Event::Start(Tag::Heading { id, .. }) = &mut events[at] {
            *id = Some(anchor(&heading).into());
        }
    }
    let mut is_dropped = false;
    events.retain_mut(|event| match event {
        Event::Start(Tag::Link { dest_url, .. }) => {
            let target = target(dest_url);
            is_dropped = target.is_none();
            if let Some(target) = target {
                *dest_url = target.into();
            }
            !is_dropped
        }
        Event::End(TagEnd::Link) => !std::mem::take(&mut is_dropped),
        _ => true,
    });
    events
}

/// Returns the text of a heading. `events` are the parser's events from the beginning of the heading.
fn text_until_end(events: &[Event<'_>]) -> String {
    let inside = events.iter().take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
    let texts = inside.filter_map(|event| match event {
        Event::Text(text) | Event::Code(text) => Some(&**text),
        _ => None,
    });
    texts.collect()
}

/// Returns the id of a heading, in the form in which GitHub generates it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Returns the path of a link's target on this server, or `None` if the server does not have the document.
fn target(link: &str) -> Option<String> {
    if link.starts_with("https://") || link.starts_with(['/', '#']) {
        return Some(link.to_owned());
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, id)| (path, Some(id)));
    let name = path.rsplit('/').next()?.strip_suffix(".md")?;
    let name = find(name)?.name;
    Some(match anchor {
        Some(anchor) => format!("/runbooks/{name}#{anchor}"),
        None => format!("/runbooks/{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runbook_is_compiled_in_and_has_a_meaning() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the runbooks are in the repository")
            .map(|entry| entry.expect("a readable folder").file_name().display().to_string())
            .collect();
        files.sort();
        let compiled: Vec<String> =
            RUNBOOKS.iter().map(|runbook| format!("{}.md", runbook.name)).collect();

        assert_eq!(compiled, files);
        for Document { name, text } in &RUNBOOKS {
            assert!(meaning(text).len() > 20, "{name}");
        }
    }

    #[test]
    fn links_lead_to_paths_of_this_server() {
        for (link, expected) in [
            ("DiskFillsIn4h.md", Some("/runbooks/DiskFillsIn4h")),
            ("runbooks/EdgeDown.md", Some("/runbooks/EdgeDown")),
            ("../operations.md#after-a-restore", Some("/runbooks/operations#after-a-restore")),
            ("/grafana/d/revwallet-ledger", Some("/grafana/d/revwallet-ledger")),
            ("#restore", Some("#restore")),
            ("../kind/README.md", None),
            ("../docker-compose.yml", None),
        ] {
            assert_eq!(target(link).as_deref(), expected, "{link}");
        }
    }

    #[test]
    fn a_page_has_ids_links_and_escaped_commands() {
        let page = page(
            "A",
            "# A\n\n## After a `psql`\n\n[B](EdgeDown.md), [C](../edge.md)\n\n```sh\na < 'b' && c\n```\n",
        );

        assert!(page.contains("<h2 id=\"after-a-psql\">"), "{page}");
        assert!(page.contains("<a href=\"/runbooks/EdgeDown\">B</a>, C</p>"), "{page}");
        assert!(
            page.contains("<pre><code class=\"language-sh\">a &lt; 'b' &amp;&amp; c"),
            "{page}"
        );
    }
}
