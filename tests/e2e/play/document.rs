//! The examples of `docs/play.md`, in their order, against a server with an empty database.

use revwallet::auth::Scope;

use crate::harness::examples::{Transcript, read};
use crate::harness::run;

/// Heading of the part whose examples need a server of their own.
const OLDER_CLIENTS: &str = "## Older clients, call by call";

/// Returns the document before that part, and the part.
fn parts() -> (String, String) {
    let document = read("docs/play.md");
    let (before, part) = document.split_once(OLDER_CLIENTS).unwrap();
    (before.to_owned(), part.to_owned())
}

#[tokio::test]
async fn the_examples_of_the_document_respond_as_it_says() {
    assert_eq!(run_examples(&parts().0).await, 5);
}

#[tokio::test]
async fn the_calls_of_older_clients_respond_as_the_transcript_says() {
    assert_eq!(run_examples(&parts().1).await, 8);
}

/// Runs each example that has an expected response; returns their number.
async fn run_examples(document: &str) -> usize {
    let mut examples = 0;
    run(async |app| {
        let key = app.api_key(&[Scope::EventsWrite]).await;
        let variables = [("EVENTS_KEY", key.credential())];
        examples = app.run_transcript(&Transcript::parse(document).answered(), &variables).await;
    })
    .await;
    examples
}
