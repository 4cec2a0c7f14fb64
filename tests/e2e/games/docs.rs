//! The examples of `docs/store.md` run as they are written.

use revwallet::auth::Scope;
use serde_json::json;

use super::buyer;
use crate::harness::run;

#[tokio::test]
async fn the_examples_of_the_documentation_work() {
    run(async |app| {
        let (ada, nova) = (buyer(app, "ada", 2_000).await, app.user("nova").await);
        let admin = app.api_key(&[Scope::Admin]).await;
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let server = app.api_key(&[Scope::GamesRead]).await;
        let variables = [
            ("ADMIN", admin.credential()),
            ("STORE", store.credential()),
            ("SERVER", server.credential()),
            ("PUBLISHER", &nova.id),
            ("USER", &ada.id),
            ("TOKEN", ada.credential()),
        ];

        let answers = app.run_examples("docs/store.md", &variables).await;

        assert_eq!(answers[2]["games"][0]["title"], "Alpha");
        assert_eq!(answers[4]["price"], 19.99);
        assert_eq!(answers[6]["userId"], json!(ada.id));
        assert_eq!(answers[7]["refunded"], 19.99);
    })
    .await;
}
