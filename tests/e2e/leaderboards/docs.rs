//! The examples of `docs/play.md` run as they are written.

use super::*;

#[tokio::test]
async fn the_examples_of_the_documentation_work() {
    run(async |app| {
        let key = app.api_key(&[Scope::EventsWrite, Scope::WalletWrite]).await;

        let answers = app.run_examples("docs/play.md", &[("KEY", key.credential())]).await;

        assert_eq!(answers[1]["rank"], 1);
        assert_eq!(
            (&answers[4]["index"], &answers[4]["entries"][1]["owner"]),
            (&json!(1), &json!("bob"))
        );
    })
    .await;
}
