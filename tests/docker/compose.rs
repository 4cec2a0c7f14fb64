//! The compose file, brought up: the seed's curl commands through nginx, a server killed, everything watched.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::engine::{IMAGE, docker, finished};

/// What is started, with all that it depends on. The rest only looks on, and its images cannot be had everywhere.
const SERVICES: [&str; 6] =
    ["nginx", "revwallet_api", "revwallet_worker", "prometheus", "alertmanager", "nginx_exporter"];

/// A system of its own from the compose file, which is gone with the test.
struct System {
    project: String,
    port: u16,
}

impl System {
    fn up() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Free a moment ago; nobody else takes ports where this runs.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let system =
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
        system.compose(&[&up[..], &SERVICES].concat()).unwrap();
        system
    }

    fn compose(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("docker");
        command
            .args(["compose", "--project-name", &self.project])
            .args(words)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("REVWALLET_VERSION", "test")
            .env("REVWALLET_RATE", "off")
            .env("REVWALLET_PORT", format!("127.0.0.1:{}", self.port));
        finished(&mut command)
    }

    fn caller(&self) -> Caller {
        Caller::new(([127, 0, 0, 1], self.port).into())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.compose(&["ps", "--all"]).unwrap_or_else(|complaint| complaint));
            eprintln!(
                "{}",
                self.compose(&["logs", "--tail=10"]).unwrap_or_else(|complaint| complaint)
            );
        }
        let _gone = self.compose(&["down", "--volumes", "--timeout=5"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_compose_file_gives_a_system_that_survives_a_killed_server() {
    let system = tokio::task::block_in_place(System::up);
    let caller = system.caller();

    the_commands_of_the_readme_answer(&caller).await;

    let servers = system.compose(&["ps", "--quiet", "revwallet_api"]).unwrap();
    let killed = servers.lines().next().unwrap();
    let keyed = caller.deposits_while(|| drop(docker(&["kill", killed]).unwrap())).await;
    let run = ["run", "--rm", "--no-deps", "migrate", "verify"];
    let report = tokio::task::block_in_place(|| system.compose(&run)).unwrap();
    assert!(report.contains("all is well"), "{report}");
    // The worker's probe moves a cent now and then, with a key as well.
    let found = report.split(" with a key,").next().unwrap().rsplit(' ').next().unwrap();
    assert!(found.parse::<u64>().unwrap() >= keyed, "{keyed} were answered: {report}");

    docker(&["start", killed]).unwrap();
    everything_is_watched(&caller).await;
}

/// As seed 004 has them: list, open, read.
async fn the_commands_of_the_readme_answer(caller: &Caller) {
    let (status, none) = caller.get("/wallet/").await;
    assert_eq!((status, none), (StatusCode::OK, json!([])));

    let body = r#"{"owner": "test2", "initial_balance": "999.00", "currency": "EUR"}"#;
    let open = |http: &reqwest::Client, url| {
        http.post(url).header("Content-Type", "application/json").body(body)
    };
    let (status, opened) = caller.send(open, "/wallet/").await;
    assert_eq!(status, StatusCode::CREATED, "{opened}");
    let wallet =
        json!({ "balance": 999.0, "currency": "EUR", "id": opened["id"], "owner": "test2" });
    assert_eq!(opened, wallet);

    let id = opened["id"].as_str().unwrap();
    let (status, read) = caller.get(&format!("/wallet/balance/{id}")).await;
    assert_eq!((status, read), (StatusCode::OK, wallet));
}

/// Prometheus finds both servers, the worker and everything else that was started, and nobody sees that unasked.
async fn everything_is_watched(caller: &Caller) {
    let path = "/prometheus/api/v1/query?query=up";
    assert_eq!(caller.get(path).await.0, StatusCode::UNAUTHORIZED);

    let expected = [("alertmanager", 1), ("nginx", 1), ("prometheus", 1), ("revwallet", 3)];
    let mut found = Value::Null;
    for _ in 0..60 {
        let ask = |http: &reqwest::Client, url| http.get(url).basic_auth("admin", Some("admin"));
        found = caller.send(ask, path).await.1;
        let series = found["data"]["result"].as_array().unwrap();
        let up = |job: &str| {
            let of_job = series.iter().filter(|one| one["metric"]["job"] == job);
            of_job.filter(|one| one["value"][1] == "1").count()
        };
        if expected.iter().all(|(job, count)| up(job) == *count) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    panic!("not everything is watched: {found}");
}
