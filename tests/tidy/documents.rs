//! Documents name only what exists: routes, scopes, events, problems, metrics. The API page names all scopes and events.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use revwallet::app::router;
use revwallet::auth::Scope;
use revwallet::error::PROBLEMS;
use revwallet::http::MoneyFormat;
use revwallet::telemetry::Metrics;
use revwallet::webhook::EVENTS;

use super::{files, root};

/// Methods of routes, as documents write them.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// Addresses of a local server before a path.
const LOCAL: [&str; 2] = ["localhost:8080", "localhost:9000"];

/// Paths in documents that are no routes of ours, with the reason.
const OTHER_PATHS: &[(&str, &str)] = &[
    ("/api/v1/write", "a route of Prometheus"),
    ("/api/v1/admin", "routes of Prometheus"),
    ("/wallet//7", "an example of a path that the edge refuses"),
];

/// Names in documents that are like those of metrics, with the reason.
const OTHER_NAMES: &[(&str, &str)] = &[("wallet_closed", "a reason of an unpaid prize")];

/// Returns path and text of every document.
fn documents() -> Vec<(PathBuf, String)> {
    let single = ["README.md", "CONTRIBUTING.md", "SECURITY.md"]
        .map(|name| (PathBuf::from(name), std::fs::read_to_string(root().join(name)).unwrap()));
    [files("docs", "md"), files("kind", "md"), single.to_vec()].concat()
}

/// Returns the code of a document: the spans between backticks, and the lines of its code blocks.
fn code(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut is_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            found.push(line);
        } else {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

/// Returns the words of code.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| c.is_whitespace() || "\"'`,;()[]<>".contains(c))
        .filter(|word| !word.is_empty())
}

/// Asserts that every word of every document that `is_about` recognizes is known.
fn assert_known(what: &str, is_about: impl Fn(&str) -> bool, is_known: impl Fn(&str) -> bool) {
    let (mut unknown, mut seen) = (String::new(), 0);
    for (path, text) in documents() {
        for word in code(&text).into_iter().flat_map(words).filter(|word| is_about(word)) {
            seen += 1;
            if !is_known(word) {
                writeln!(unknown, "{}: {word}", path.display()).unwrap();
            }
        }
    }
    assert!(unknown.is_empty(), "no such {what}:\n{unknown}");
    assert!(seen > 0, "no document names a {what}");
}

/// Routes that the program serves.
struct Routes {
    /// Method and path of each operation of the OpenAPI document.
    operations: Vec<(String, String)>,
    /// Paths outside of it: internal routes and pages.
    others: BTreeSet<String>,
}

impl Routes {
    fn new() -> Self {
        let document = router::document(MoneyFormat::Number);
        let paths = document["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().map(|name| name.to_uppercase());
            let methods = methods.filter(|name| METHODS.contains(&name.as_str()));
            methods.map(|method| (method, path.clone())).collect::<Vec<_>>()
        });
        let operations: Vec<_> = operations.collect();
        let mut others = BTreeSet::new();
        for (path, text) in files("src", "rs") {
            // The pages are a table of paths.
            let mark = if path == Path::new("src/web/mod.rs") { "(\"/" } else { ".route(\"/" };
            let literals = text.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
            others.extend(literals.map(|path| format!("/{path}")));
        }
        let is_documented =
            |path: &String| operations.iter().any(|(_, known)| first(known) == first(path));
        others.retain(|path| !is_documented(path));
        Self { operations, others }
    }

    /// Whether a path may be one of this program: its first segment is.
    fn is_ours(&self, path: &str) -> bool {
        let known = self.operations.iter().map(|(_, known)| known);
        known.chain(&self.others).any(|known| first(known).len() > 1 && first(known) == first(path))
    }

    /// Whether the program serves this path, or paths below it; with a method exactly this operation.
    fn exist(&self, method: Option<&str>, path: &str) -> bool {
        let is_below = |known: &str| method.is_none() && known.starts_with(&format!("{path}/"));
        let mut operations = self.operations.iter();
        operations.any(|(known_method, known)| {
            let is_method = method.is_none_or(|method| method == known_method);
            is_method && is_same(path, known) || is_below(known)
        }) || self.others.iter().any(|known| is_same(path, known) || is_below(known))
    }
}

/// First segment of a path.
fn first(path: &str) -> &str {
    let end = path[1..].find('/').map_or(path.len(), |at| at + 1);
    &path[..end]
}

/// Whether a path is one of a route, whose parameters stand for any segment.
fn is_same(path: &str, route: &str) -> bool {
    let (path, route): (Vec<&str>, Vec<&str>) =
        (path.split('/').collect(), route.split('/').collect());
    let mut pairs = path.iter().zip(&route);
    path.len() == route.len() && pairs.all(|(own, known)| own == known || known.starts_with('{'))
}

/// The path that a word of code has, without its query.
fn path_of(word: &str) -> Option<&str> {
    let word = word.strip_prefix("http://").unwrap_or(word);
    let word = LOCAL.iter().find_map(|address| word.strip_prefix(address)).unwrap_or(word);
    let path = word.split(['?', '#']).next()?;
    let path = path.trim_end_matches(['.', ':', '…']);
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    (path.starts_with('/') && path[1..].starts_with(|c: char| c.is_ascii_lowercase()))
        .then_some(path)
}

/// Returns the routes of a piece of code that do not exist, and the number of those that do.
fn unknown_routes<'a>(code: &'a str, routes: &Routes) -> (Vec<&'a str>, usize) {
    let (mut unknown, mut known) = (Vec::new(), 0);
    let mut before = None;
    for word in words(code) {
        let method = before.filter(|word| METHODS.contains(word));
        before = Some(word);
        let Some(path) = path_of(word).filter(|path| routes.is_ours(path)) else { continue };
        if routes.exist(method, path) || OTHER_PATHS.iter().any(|(other, _)| *other == path) {
            known += 1;
        } else {
            unknown.push(word);
        }
    }
    (unknown, known)
}

#[test]
fn routes_in_documents_exist() {
    let routes = Routes::new();
    let (mut report, mut seen) = (String::new(), 0);
    for (document, text) in documents() {
        for code in code(&text) {
            let (unknown, known) = unknown_routes(code, &routes);
            seen += known;
            for word in unknown {
                writeln!(report, "{}: {word} in {code}", document.display()).unwrap();
            }
        }
    }
    assert!(report.is_empty(), "no such route:\n{report}");
    assert!(seen > 300, "{seen} routes in all documents");
    for (path, reason) in OTHER_PATHS {
        assert!(documents().iter().any(|(_, text)| text.contains(path)) && !reason.is_empty());
    }
}

#[test]
fn an_unknown_route_is_detected() {
    let routes = Routes::new();
    for code in [
        "GET /wallet/{id}",
        "POST /wallet/",
        "curl -s 'localhost:8080/wallet/1/history?limit=2' -H \"$AUTH\"",
        "curl localhost:9000/readyz",
        "`/api/wallet`",
        "GET /internal/user/{id}",
    ] {
        assert_eq!(unknown_routes(code, &routes).0, [""; 0], "{code}");
    }
    for code in [
        "PUT /wallet/{id}",
        "GET /wallet/{id}/balance",
        "curl localhost:8080/api/wallets",
        "/internal/users/{id}",
        "/exchange/price",
    ] {
        assert_eq!(unknown_routes(code, &routes).0.len(), 1, "{code}");
    }
}

#[test]
fn scopes_in_documents_exist() {
    let is_scope = |word: &str| {
        let (resource, access) = word.split_once(':').unwrap_or_default();
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_lowercase());
        let names = Scope::ALL.into_iter().map(Scope::name);
        let mut resources = names.filter_map(|name| name.split_once(':'));
        let is_resource = resources.any(|(known, _)| known == resource);
        let is_access = ["read", "write"].contains(&access);
        is_name(resource) && is_name(access) && (is_resource || is_access)
    };
    assert_known("scope", is_scope, |word| Scope::ALL.iter().any(|scope| scope.name() == word));
}

/// Families of webhook events.
const FAMILIES: [&str; 6] = ["wallet", "transfer", "alert", "order", "entitlement", "game"];

#[test]
fn events_in_documents_exist() {
    let sources: String = files("src", "rs").into_iter().map(|(_, text)| text).collect();
    let is_event = |word: &str| {
        let (family, name) = word.split_once('.').unwrap_or_default();
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        FAMILIES.contains(&family) && is_name
    };
    // Log events and spans have names of the same form.
    assert_known("event", is_event, |word| {
        EVENTS.contains(&word) || sources.contains(&format!("\"{word}\""))
    });
}

#[test]
fn metrics_in_documents_exist() {
    let is_known = |word: &str| {
        let suffixes = ["_bucket", "_sum", "_count"];
        let base = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word);
        Metrics::DECLARED.iter().any(|metric| metric.name == word || metric.name == base)
    };
    let is_metric = |word: &str| {
        let is_name = word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let is_other = OTHER_NAMES.iter().any(|(name, _)| *name == word);
        word.starts_with("wallet_") && is_name && !word.ends_with('_') && !is_other
    };
    assert_known("metric", is_metric, is_known);
}

#[test]
fn problems_in_documents_exist() {
    let mut seen = 0;
    for (path, text) in documents() {
        // Documents write a problem as "409 `hold-ended`".
        let parts: Vec<&str> = text.split('`').collect();
        for pair in parts.windows(2) {
            let status = pair[0].trim_end().rsplit(' ').next().unwrap_or_default();
            let is_status = status.len() == 3 && status.starts_with(['4', '5']);
            if !is_status || !status.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let slug = pair[1];
            if !slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
                continue;
            }
            let is_known = PROBLEMS
                .iter()
                .any(|problem| problem.slug == slug && problem.status.as_str() == status);
            assert!(is_known, "{}: there is no problem {status} {slug}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} problems in all documents");
}

#[test]
fn the_api_page_names_every_scope_and_event() {
    let text = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let names = Scope::ALL.into_iter().map(Scope::name).chain(EVENTS.iter().copied());
    for name in names {
        assert!(text.contains(&format!("`{name}`")), "docs/api.md does not name {name}");
    }
}

#[test]
fn nothing_is_deprecated_while_the_api_page_says_so() {
    let document = router::document(MoneyFormat::Number).to_string();
    let text = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let says_nothing_is = text.contains("Nothing is deprecated today");
    assert_eq!(says_nothing_is, !document.contains("\"deprecated\":true"));
}
