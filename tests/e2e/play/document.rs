//! The examples of `docs/play.md`, in their order, against a server with an empty database.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

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

#[tokio::test]
async fn the_examples_of_the_document_respond_as_it_says() {
    run(async |app| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let document = std::fs::read_to_string(root.join("docs/play.md")).unwrap();
        let blocks = blocks(&document);
        let mut examples = 0;
        for pair in blocks.windows(2).filter(|pair| pair[1].language == "json") {
            let code = pair[0].code.replace("localhost:8080", &app.address.to_string());
            let python =
                "source scripts/lib/setup.sh && \"$(grpc_python_tools)/bin/python\" -c \"$0\"";
            let arguments = match pair[0].language.as_str() {
                "sh" => vec!["-c".to_owned(), code],
                "python" => vec!["-c".to_owned(), python.to_owned(), code],
                other => panic!("an example in {other}"),
            };
            let output = Command::new("bash").args(arguments).current_dir(root).output().await;
            let output = String::from_utf8(output.unwrap().stdout).unwrap();

            let found: Value = serde_json::from_str(&output)
                .unwrap_or_else(|_| panic!("{}: {output}", pair[0].code));
            let expected: Value = serde_json::from_str(&pair[1].code).unwrap();
            assert_eq!(found, expected, "{}", pair[0].code);
            examples += 1;
        }
        assert_eq!(examples, 5);
    })
    .await;
}
