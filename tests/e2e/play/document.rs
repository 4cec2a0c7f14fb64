//! The examples of `docs/play.md`, in their order, against a server with an empty database.

use std::path::Path;

use revwallet::auth::Scope;
use serde_json::Value;
use tokio::process::Command;

use crate::harness::grpc::python;
use crate::harness::run;

/// A block of code with its language.
struct Block {
    language: String,
    code: String,
}

/// Returns the blocks of a document.
fn blocks(document: &str) -> Vec<Block> {
    let parts = document.split("```").skip(1).step_by(2);
    let split = |part: &str| part.split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned()));
    parts.filter_map(split).map(|(language, code)| Block { language, code }).collect()
}

/// Heading of the part whose examples need a server of their own.
const TRANSCRIPT: &str = "## Older clients, call by call";

/// Returns the document before the transcript, and the transcript.
fn parts() -> (String, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/play.md")).unwrap();
    let (before, transcript) = document.split_once(TRANSCRIPT).unwrap();
    (before.to_owned(), transcript.to_owned())
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
        let blocks = blocks(document);
        for pair in blocks.windows(2).filter(|pair| pair[1].language == "json") {
            let code = pair[0].code.replace("localhost:8080", &app.address.to_string());
            let program = match pair[0].language.as_str() {
                "sh" => Path::new("bash"),
                "python" => python(),
                other => panic!("an example in {other}"),
            };
            let mut command = Command::new(program);
            command.args(["-c", &code]).env("EVENTS_KEY", key.credential());
            let output = command.output().await.unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            let output = String::from_utf8(output.stdout).unwrap();

            let found: Value = serde_json::from_str(&output)
                .unwrap_or_else(|_| panic!("{}: {output} {errors}", pair[0].code));
            let expected: Value = serde_json::from_str(&pair[1].code).unwrap();
            assert_eq!(found, expected, "{}", pair[0].code);
            examples += 1;
        }
    })
    .await;
    examples
}
