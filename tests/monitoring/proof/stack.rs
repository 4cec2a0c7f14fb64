//! Two programs, Prometheus, Alertmanager, and somebody who is told.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use serde_json::{Value, json};

use crate::files::root;
use crate::harness::postgres::Database;
use crate::harness::program::{Folder, Program};
use crate::harness::{Client, eventually_within, free_address};
use crate::source::promql::Pace;
use crate::source::rules;
use crate::tools::tool;

/// An hour passes in a minute.
pub const PACE: Pace = Pace { factor: 60.0, least: 4.0 };

/// To whom, which alert, firing or resolved.
type Told = Arc<Mutex<Vec<(String, String, String)>>>;

/// Every trace is kept, for a collector that is not there.
const TRACED: &str = "--otlp-endpoint=http://127.0.0.1:1";

pub struct Stack {
    /// On an embedded Postgres of its own, which can be stopped.
    pub first: Program,
    pub first_folder: Folder,
    /// On a database that can be tampered with.
    pub second: Mutex<Option<Program>>,
    pub second_public: Client,
    pub database: Database,
    _folder: Folder,
    targets: PathBuf,
    prometheus_at: Client,
    _prometheus: Tool,
    _alertmanager: Tool,
    told: Told,
}

impl Stack {
    pub async fn start() -> Self {
        let (first_folder, folder) = (Folder::new(), Folder::new());
        let patience = [
            "--http-timeout=2s",
            "--database-acquire-timeout=500ms",
            "--webhook-allow-private",
            "--access=open",
            "--registrations-max=1000",
        ];
        let address = free_address();
        let own = [
            &first_folder.setting() as &str,
            TRACED,
            &format!("--listen={address}"),
            &format!("--probe-url=http://{address}"),
            "--probe-interval=300ms",
        ];
        let first = Program::start(&[&own, &patience[..]].concat()).await;
        let database = Database::create().await;
        let url = format!("--database-url={}", database.url);
        let own = [&url as &str, "--allow-unsafe-server"];
        let second = Program::start(&[&own, &patience[..]].concat()).await;
        let told = Told::default();
        let receiver = receive(Arc::clone(&told), first.internal.clone()).await;

        let (prometheus_at, alertmanager_at) = (free_address(), free_address());
        configure(&folder, &prometheus_at.to_string(), &alertmanager_at.to_string(), &receiver);
        let stack = Self {
            targets: folder.0.join("targets.json"),
            _prometheus: spawn(
                "prometheus",
                &folder,
                &[
                    "--config.file=prometheus.yml",
                    "--storage.tsdb.path=tsdb",
                    "--enable-feature=exemplar-storage",
                    &format!("--web.listen-address={prometheus_at}"),
                ],
            ),
            _alertmanager: spawn(
                "prometheus-alertmanager",
                &folder,
                &[
                    "--config.file=alertmanager.yml",
                    "--storage.path=alerts",
                    "--cluster.listen-address=",
                    &format!("--web.listen-address={alertmanager_at}"),
                ],
            ),
            prometheus_at: Client::new(prometheus_at),
            second_public: second.public.clone(),
            second: Mutex::new(Some(second)),
            first,
            first_folder,
            database,
            _folder: folder,
            told,
        };
        stack.scrape_both();
        let ready = async || stack.prometheus_at.try_status("/-/ready").await == Some(200);
        eventually_within(Duration::from_secs(30), "Prometheus is ready", ready).await;
        let up = async || stack.query("sum(up)").await.first().is_some_and(|value| *value > 3.5);
        eventually_within(Duration::from_secs(30), "Prometheus reaches everything", up).await;
        stack
    }

    pub fn scrape_both(&self) {
        let second = self.second.lock().unwrap();
        let addresses: Vec<String> = [Some(&self.first), second.as_ref()]
            .into_iter()
            .flatten()
            .map(|program| program.internal.address.to_string())
            .collect();
        self.scrape(&addresses);
    }

    /// From now on only these are expected to be there.
    pub fn scrape(&self, addresses: &[String]) {
        std::fs::write(&self.targets, json!([{ "targets": addresses }]).to_string()).unwrap();
    }

    /// The values that an expression has now.
    pub async fn query(&self, expression: &str) -> Vec<f64> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let path = format!("/api/v1/query?query={query}");
        let answer = self.prometheus_at.get(&path).await;
        let body = answer.json();
        assert_eq!(body["status"], "success", "{expression}: {}", answer.text);
        let results = body["data"]["result"].as_array().cloned().unwrap_or_default();
        results.iter().map(|result| result["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }

    /// How many requests of a histogram lead to a trace.
    pub async fn exemplars(&self, metric: &str) -> usize {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let path = format!("/api/v1/query_exemplars?query={metric}&start={}&end={now}", now - 60);
        let body = self.prometheus_at.get(&path).await.json();
        let series = body["data"].as_array().unwrap();
        series.iter().map(|one| one["exemplars"].as_array().unwrap().len()).sum()
    }

    /// The names of all metrics.
    pub async fn names(&self) -> Vec<String> {
        let body = self.prometheus_at.get("/api/v1/label/__name__/values").await.json();
        body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    /// Whether an alert fires, of that severity.
    pub async fn fires(&self, alert: &str, severity: &str) -> bool {
        let body = self.prometheus_at.get("/api/v1/alerts").await.json();
        let alerts = body["data"]["alerts"].as_array().unwrap();
        alerts.iter().any(|one| {
            one["labels"]["alertname"] == alert
                && one["labels"]["severity"] == severity
                && one["state"] == "firing"
        })
    }

    pub fn told(&self) -> Vec<(String, String, String)> {
        self.told.lock().unwrap().clone()
    }

    pub async fn stop(self) {
        let Self { first, second, database, .. } = self;
        assert!(first.stop().await.success());
        let second = second.into_inner().unwrap();
        if let Some(second) = second {
            assert!(second.stop().await.success());
        }
        database.drop().await;
    }
}

/// A process that ends with the test, also with one that fails.
struct Tool(Child);

impl Drop for Tool {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn spawn(name: &str, folder: &Folder, words: &[&str]) -> Tool {
    let log = std::fs::File::create(folder.0.join(format!("{name}.log"))).unwrap();
    let child = Command::new(tool(name))
        .args(words)
        .current_dir(&folder.0)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Tool(child.unwrap())
}

/// Writes what both of them read.
fn configure(folder: &Folder, prometheus: &str, alertmanager: &str, receiver: &str) {
    std::fs::create_dir_all(folder.0.join("rules")).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.0.join(name), text).unwrap();
    write("rules/slos.yml", rules::slos(PACE));
    write("rules/alerts.yml", rules::alerts(PACE));
    write("prometheus.yml", configuration(prometheus, alertmanager));
    let real = std::fs::read_to_string(root().join("alertmanager/alertmanager.yml")).unwrap();
    let hurried = real
        .replace("http://revwallet-api:9000/internal/alerts", receiver)
        .replace("group_wait: 10s", "group_wait: 0s")
        .replace("group_interval: 2m", "group_interval: 1s");
    write("alertmanager.yml", hurried);
}

fn configuration(prometheus: &str, alertmanager: &str) -> String {
    format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ['rules/*.yml']
alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ['{alertmanager}'] }}] }}] }}
scrape_configs:
  - {{ job_name: revwallet, file_sd_configs: [{{ files: ['targets.json'], refresh_interval: 1s }}] }}
  - {{ job_name: prometheus, static_configs: [{{ targets: ['{prometheus}'] }}] }}
  - {{ job_name: alertmanager, static_configs: [{{ targets: ['{alertmanager}'] }}] }}
"
    )
}

/// Somebody who writes down what they are told and passes it on to the program; their address.
async fn receive(told: Told, program: Client) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let router = Router::new().route("/alerts/{to}", post(hear)).with_state((told, program));
    tokio::spawn(async move { axum::serve(socket, router).await });
    format!("http://{address}/alerts")
}

async fn hear(State((told, program)): State<(Told, Client)>, Path(to): Path<String>, body: String) {
    let body: Value = serde_json::from_str(&body).unwrap();
    for alert in body["alerts"].as_array().unwrap() {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        told.lock().unwrap().push((
            to.clone(),
            text(&alert["labels"]["alertname"]),
            text(&alert["status"]),
        ));
    }
    let request = program.request(http::Method::POST, &format!("/internal/alerts/{to}"));
    // At the end of the test the program is gone before Alertmanager is.
    if let Ok(passed_on) = Client::try_send(request.json(&body)).await {
        assert_eq!(passed_on.status, 204, "{}", passed_on.text);
    }
}
