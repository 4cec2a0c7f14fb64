//! The examples of `docs/exchange.md` run as they are written.

use revwallet::auth::Scope;

use crate::harness::run;

#[tokio::test]
async fn the_examples_of_the_documentation_work() {
    run(async |app| {
        let (ada, admin) = (app.user("ada").await, app.api_key(&[Scope::Admin]).await);
        let variables =
            [("ADMIN", admin.credential()), ("USER", &ada.id), ("TOKEN", ada.credential())];

        let answers = app.run_examples("docs/exchange.md", &variables).await;

        assert_eq!(answers[1]["status"], "OK");
        assert_eq!(answers[2]["crypto_amount"], 3.0);
        assert_eq!(answers[3]["order_id"], 1);
        assert_eq!(answers[4]["fiat_amount"], 30.0);
        assert_eq!(answers[6][0]["order_id"], 1);
        assert_eq!(answers[7]["currency"], "EUR");
        super::reaches(&ada, 1, "completed").await;
    })
    .await;
}
