//! The examples of `docs/store.md` run as they are written.

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::buyer;
use crate::harness::run;

#[tokio::test]
async fn the_examples_of_the_documentation_work() {
    run(async |app| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/store.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, rest) = document.split_once("<!-- examples -->\n```sh\n").unwrap();
        let (script, _) = rest.split_once("```\n<!-- end of examples -->").unwrap();
        let (ada, nova) = (buyer(app, "ada", 2_000).await, app.user("nova").await);
        let prelude = "set -euo pipefail\ncurl() { command curl --fail-with-body \"$@\"; echo; }\n";

        let output = tokio::process::Command::new("bash")
            .args(["-c", &format!("{prelude}{script}")])
            .env("API", format!("http://{}", app.address))
            .env("ADMIN", app.api_key(&[Scope::Admin]).await.credential())
            .env("STORE", app.api_key(&[Scope::GamesWrite]).await.credential())
            .env("SERVER", app.api_key(&[Scope::GamesRead]).await.credential())
            .env("PUBLISHER", &nova.id)
            .env("USER", &ada.id)
            .env("TOKEN", ada.credential())
            .output()
            .await
            .unwrap();

        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text} {:?}", String::from_utf8(output.stderr));
        let answers: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), script.matches("curl ").count());
        assert_eq!(answers[2]["games"][0]["title"], "Alpha");
        assert_eq!(answers[4]["price"], 19.99);
        assert_eq!(answers[6]["userId"], json!(ada.id));
        assert_eq!(answers[7]["refunded"], 19.99);
    })
    .await;
}
