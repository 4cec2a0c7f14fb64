//! The compose file on a real engine: the documented curl commands through nginx, a killed server, metrics of every service.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::client::Client;
use crate::engine::{IMAGE, docker, run};

/// Services that are started, with their dependencies; the others only observe, and their images are not available everywhere.
const SERVICES: [&str; 6] =
    ["nginx", "revwallet_api", "revwallet_worker", "prometheus", "alertmanager", "nginx_exporter"];

/// A Compose project that is removed at the end of the test.
struct Project {
    project: String,
    port: u16,
}

impl Project {
    fn up() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The port is free; no other process takes ports on this machine meanwhile.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let project =
            Self { project: format!("revwallet-test-{}-{number}", std::process::id()), port };
        docker(&["tag", IMAGE, "ghcr.io/revwallet/revwallet:test"]).unwrap();
        let up = [
            "up",
            "--detach",
            "--no-build",
            "--wait",
            "--wait-timeout=240",
            "--scale=revwallet_api=2",
        ];
        project.compose(&[&up[..], &SERVICES].concat()).unwrap();
        project
    }

    fn compose(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("docker");
        command
            .args(["compose", "--project-name", &self.project])
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("REVWALLET_VERSION", "test")
            .env("REVWALLET_RATE", "off")
            .env("REVWALLET_PORT", self.port.to_string());
        run(&mut command)
    }

    fn client(&self) -> Client {
        Client::new(([127, 0, 0, 1], self.port).into())
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.compose(&["ps", "--all"]).unwrap_or_else(|error| error));
            eprintln!("{}", self.compose(&["logs", "--tail=10"]).unwrap_or_else(|error| error));
        }
        let _gone = self.compose(&["down", "--volumes", "--timeout=5"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compose_project_survives_a_killed_server() {
    let project = tokio::task::block_in_place(Project::up);
    let client = project.client();

    assert_documented_commands(&client).await;

    let servers = project.compose(&["ps", "--quiet", "revwallet_api"]).unwrap();
    let killed = servers.lines().next().unwrap();
    let with_key = client.deposit_during(|| drop(docker(&["kill", killed]).unwrap())).await;
    let verify = ["run", "--rm", "--no-deps", "migrate", "verify"];
    let report = tokio::task::block_in_place(|| project.compose(&verify)).unwrap();
    assert!(report.contains("no faults found"), "{report}");
    // The canary of the worker also posts transfers with a key.
    let found = report.split(" with a key,").next().unwrap().rsplit(' ').next().unwrap();
    assert!(found.parse::<u64>().unwrap() >= with_key, "{with_key} succeeded: {report}");

    docker(&["start", killed]).unwrap();
    assert_every_target_is_up(&client).await;
}

/// Sends the requests of the documented curl commands: list, open, read.
async fn assert_documented_commands(client: &Client) {
    let (status, wallets) = client.get("/wallet/").await;
    assert_eq!((status, wallets), (StatusCode::OK, json!([])));

    let body = r#"{"owner": "test2", "initial_balance": "999.00", "currency": "EUR"}"#;
    let open = |http: &reqwest::Client, url| {
        http.post(url).header("Content-Type", "application/json").body(body)
    };
    let (status, opened) = client.send(open, "/wallet/").await;
    assert_eq!(status, StatusCode::CREATED, "{opened}");
    let wallet =
        json!({ "balance": 999.0, "currency": "EUR", "id": opened["id"], "owner": "test2" });
    assert_eq!(opened, wallet);

    let id = opened["id"].as_str().unwrap();
    let (status, balance) = client.get(&format!("/wallet/balance/{id}")).await;
    assert_eq!((status, balance), (StatusCode::OK, wallet));
}

/// Asserts that Prometheus scrapes both servers, the worker and every other service, and requires a password.
async fn assert_every_target_is_up(client: &Client) {
    let path = "/prometheus/api/v1/query?query=up";
    assert_eq!(client.get(path).await.0, StatusCode::UNAUTHORIZED);

    let expected = [("alertmanager", 1), ("nginx", 1), ("prometheus", 1), ("revwallet", 3)];
    let mut found = Value::Null;
    for _ in 0..60 {
        let query = |http: &reqwest::Client, url| http.get(url).basic_auth("admin", Some("admin"));
        found = client.send(query, path).await.1;
        let series = found["data"]["result"].as_array().unwrap();
        let up = |job: &str| {
            let of_job = series.iter().filter(|sample| sample["metric"]["job"] == job);
            of_job.filter(|sample| sample["value"][1] == "1").count()
        };
        if expected.iter().all(|(job, count)| up(job) == *count) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    panic!("not every target is up: {found}");
}
