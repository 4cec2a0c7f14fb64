//! Two servers behind nginx: if one is killed, requests with an idempotency key succeed and no money is lost.

use reqwest::StatusCode;
use serde_json::json;

use crate::client::Client;
use crate::engine::docker;
use crate::network::TestNetwork;

fn start_two_servers() -> (TestNetwork, Client) {
    let network = TestNetwork::new();
    network.start_server("api-1");
    network.start_server("api-2");
    let client = Client::new(network.start_edge());
    (network, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_forwards_public_routes_only() {
    let (_network, client) = start_two_servers();

    let wallet = client.open_wallet("ada").await;
    let deposit = json!({ "id": wallet, "amount": "12.34" });
    let (status, first) = client.post("/wallet/deposit", "once", &deposit).await;
    let (again, second) = client.post("/wallet/deposit", "once", &deposit).await;

    assert_eq!((status, again), (StatusCode::OK, StatusCode::OK));
    assert_eq!(first, second, "the deposit is applied once");
    assert_eq!(first["balance"], 12.34);
    for path in ["/metrics", "/readyz", "/livez", "/internal/audit"] {
        assert_eq!(client.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_fails_no_request_with_a_key() {
    let (network, client) = start_two_servers();

    let killed = network.container("api-1");
    let with_key = client.deposit_during(|| drop(docker(&["kill", &killed]).unwrap())).await;

    let report = tokio::task::block_in_place(|| network.run_program(&["verify"])).unwrap();
    assert!(report.contains("no faults found"), "{report}");
    assert!(
        report.contains(&format!(", {with_key} with a key,")),
        "{with_key} succeeded: {report}"
    );
}
