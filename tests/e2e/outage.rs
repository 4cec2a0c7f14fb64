//! A database outage while the program serves requests.

use revwallet::db::embedded::{Embedded, EmbeddedArgs};

use crate::harness::eventually;
use crate::harness::program::{Folder, Program};

#[tokio::test]
async fn an_outage_is_reported_and_survived() {
    let folder = Folder::new();
    let args = EmbeddedArgs { data_dir: folder.0.clone(), postgres_bin: None };
    let server = Embedded::start(&args).await.unwrap();
    let url = format!(
        "--database-url=postgres://{}@localhost/{}?host={}",
        server.user(),
        server.database(),
        server.socket_dir().display()
    );
    let program =
        Program::start(&[&url, "--database-acquire-timeout=200ms", "--access=open"]).await;
    assert_eq!(program.internal.get("/readyz").await.status, 200);

    server.stop().await;
    drop(server);

    let request = program.public.request(reqwest::Method::POST, "/wallet");
    let request = request.json(&serde_json::json!({ "owner": "a", "currency": "EUR" }));
    program.public.send(request).await.problem(503, "database-unavailable");
    let response = program.internal.get("/readyz").await;
    assert_eq!(response.status, 503);
    assert!(!response.header("retry-after").is_empty());
    assert!(response.json()["checks"]["database"].is_string(), "{}", response.text);
    assert_eq!(
        program.internal.get("/livez").await.status,
        200,
        "the process is alive during the outage"
    );
    let metrics = program.internal.get("/metrics").await.text;
    assert!(metrics.contains("wallet_ready{check=\"database\"} 0"));

    let server = Embedded::start(&args).await.unwrap();

    eventually("the program is ready again", async || {
        program.internal.try_status("/readyz").await == Some(200)
    })
    .await;
    let request = program.public.request(reqwest::Method::POST, "/wallet");
    let request = request.json(&serde_json::json!({ "owner": "a", "currency": "EUR" }));
    assert_eq!(program.public.send(request).await.status, 201, "a wallet opens after the outage");
    assert!(program.stop().await.success());
    server.stop().await;
}
