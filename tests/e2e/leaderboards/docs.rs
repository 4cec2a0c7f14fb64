//! The examples of `docs/play.md` run as they are written.

use super::*;

#[tokio::test]
async fn the_examples_of_the_documentation_work() {
    run(async |app| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/play.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, rest) = document.split_once("<!-- examples -->\n```sh\n").unwrap();
        let (script, _) = rest.split_once("```\n<!-- end of examples -->").unwrap();
        let key = app.api_key(&[Scope::EventsWrite, Scope::WalletWrite]).await;
        let prelude = "set -euo pipefail\ncurl() { command curl --fail-with-body \"$@\"; echo; }\n";

        let output = tokio::process::Command::new("bash")
            .args(["-c", &format!("{prelude}{script}")])
            .env("API", format!("http://{}", app.address))
            .env("KEY", key.credential())
            .output()
            .await
            .unwrap();

        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text} {:?}", String::from_utf8(output.stderr));
        let answers: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), script.matches("curl ").count());
        assert_eq!(answers[1]["rank"], 1);
        assert_eq!(
            (&answers[4]["index"], &answers[4]["entries"][1]["owner"]),
            (&json!(1), &json!("bob"))
        );
    })
    .await;
}
