//! Two servers behind nginx, one of them killed: whoever gave a key notices nothing, and the money is right.

use reqwest::StatusCode;
use serde_json::json;

use crate::caller::Caller;
use crate::engine::docker;
use crate::network::Lab;

fn lab_with_two_servers() -> (Lab, Caller) {
    let lab = Lab::new();
    lab.server("api-1");
    lab.server("api-2");
    let caller = Caller::new(lab.edge());
    (lab, caller)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_lets_through_what_is_for_strangers_and_no_more() {
    let (_lab, caller) = lab_with_two_servers();

    let wallet = caller.wallet("somebody").await;
    let deposit = json!({ "id": wallet, "amount": "12.34" });
    let (status, first) = caller.post("/wallet/deposit", "once", &deposit).await;
    let (again, second) = caller.post("/wallet/deposit", "once", &deposit).await;

    assert_eq!((status, again), (StatusCode::OK, StatusCode::OK));
    assert_eq!(first, second, "it is done once");
    assert_eq!(first["balance"], 12.34);
    for path in ["/metrics", "/readyz", "/livez", "/internal/audit"] {
        assert_eq!(caller.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_fails_no_request_with_a_key() {
    let (lab, caller) = lab_with_two_servers();

    let killed = lab.container("api-1");
    let keyed = caller.deposits_while(|| drop(docker(&["kill", &killed]).unwrap())).await;

    let report = tokio::task::block_in_place(|| lab.command(&["verify"])).unwrap();
    assert!(report.contains("all is well"), "{report}");
    assert!(report.contains(&format!(", {keyed} with a key,")), "{keyed} were answered: {report}");
}
