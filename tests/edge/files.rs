//! Files of the edge that are made from the code: what is committed is what the code says.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use revwallet::error::Error;
use revwallet::http::problem::ProblemBody;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Failures that the edge answers itself, by the names of their locations.
fn failures() -> Vec<(&'static str, Error)> {
    let method = http::Method::from_bytes(b"METHOD").unwrap();
    vec![
        ("malformed", Error::Malformed),
        ("locked", Error::Unauthenticated),
        ("missing", Error::NotFound("path")),
        ("method", Error::MethodNotAllowed(method)),
        ("large", Error::BodyTooLarge { limit: 0 }),
        ("often", Error::TooManyRequests { wait: Duration::ZERO }),
        ("fault", Error::Internal(anyhow::anyhow!("not told"))),
        ("gone", Error::Unreachable),
        ("busy", Error::Overloaded),
        ("late", Error::Unanswered),
    ]
}

/// A location for each, with the very body that the API would have written.
fn problems() -> String {
    let mut text = String::from(
        "# Failures that the edge answers itself, in the API's words.\n\
         # Written by tests/edge: BLESS=1 cargo test --test edge files\n",
    );
    for (name, error) in failures() {
        let body = serde_json::to_string(&ProblemBody::of(&error, "$trace_id")).unwrap();
        let body = body.replace("METHOD", "$request_method").replace("0 bytes", "$body_max bytes");
        let status = error.problem().status.as_u16();
        assert!(!body.contains('\''), "a quote would end the text");
        // Before its path is known, a request cannot go to a location that has a name only.
        let (place, internal) = match name {
            "malformed" | "fault" => (format!("= /edge/{name}"), "internal;\n    "),
            _ => (format!("@{name}"), ""),
        };
        write!(
            text,
            "location {place}_problem {{\n    {internal}types {{ }}\n    default_type application/problem+json;\n    \
             return {status} '{body}';\n}}\n",
        )
        .unwrap();
    }
    text
}

#[test]
fn what_is_committed_is_what_the_code_says() {
    let bless = std::env::var_os("BLESS").is_some();
    let made = [
        ("nginx/problems.conf", problems()),
        ("nginx/pages/style.css", read("src/web/style.css")),
        ("nginx/pages/icon.svg", read("src/web/icon.svg")),
    ];
    for (path, expected) in made {
        if std::fs::read_to_string(root().join(path)).unwrap_or_default() != expected {
            assert!(
                bless,
                "{path} is not what the code says; run: BLESS=1 cargo test --test edge files"
            );
            std::fs::write(root().join(path), expected).unwrap();
        }
    }
}
