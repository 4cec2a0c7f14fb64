//! Test stack: three programs, Prometheus, Alertmanager and a receiver of notifications.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use serde_json::{Value, json};

use crate::generated_files::root;
use crate::harness::postgres::Database;
use crate::harness::program::{Folder, Program, command};
use crate::harness::{Client, eventually_within, free_address};
use crate::source::promql::TimeScale;
use crate::source::rules;
use crate::tools::tool;

/// An hour of the rules passes in a minute.
const TIME_SCALE: TimeScale = TimeScale { factor: 60.0, seconds_min: 4.0 };

/// An alert that Alertmanager sent.
#[derive(Clone)]
pub struct Notification {
    pub receiver: String,
    pub alert: String,
    /// `firing` or `resolved`.
    pub status: String,
}

type Received = Arc<Mutex<Vec<Notification>>>;

/// Settings of every program.
const SETTINGS: &[&str] = &[
    "--http-timeout=2s",
    "--database-acquire-timeout=500ms",
    "--webhook-allow-private",
    "--access=open",
    "--registrations-max=1000",
    "--realtime-queue-bytes=100000",
    "--realtime-grace=1s",
];

/// Samples every trace; no collector listens there.
const TRACING: &str = "--otlp-endpoint=http://127.0.0.1:1";

pub struct Stack {
    /// Runs on an embedded Postgres of its own, which a test can stop.
    pub first: Program,
    pub first_folder: Folder,
    /// Runs on a database that a test can tamper with.
    pub second: Mutex<Option<Program>>,
    pub second_public: Client,
    /// Runs on the database of the second program, so one of these two leads its book and the other follows.
    pub third: Mutex<Option<Program>>,
    pub third_public: Client,
    pub database: Database,
    _folder: Folder,
    targets: PathBuf,
    prometheus_at: Client,
    _prometheus: Tool,
    _alertmanager: Tool,
    received: Received,
}

impl Stack {
    /// Creates an API key with every permission on the first program.
    pub fn first_key(&self) -> String {
        create_key(&[&self.first_folder.setting()])
    }

    /// Creates an API key with every permission on the second program.
    pub fn second_key(&self) -> String {
        create_key(&[&format!("--database-url={}", self.database.url), "--allow-unsafe-server"])
    }

    pub async fn start() -> Self {
        let (first_folder, folder) = (Folder::new(), Folder::new());
        let address = free_address();
        let own = [
            &first_folder.setting() as &str,
            TRACING,
            &format!("--listen={address}"),
            &format!("--probe-url=http://{address}"),
            "--probe-interval=300ms",
        ];
        let first = Program::start(&[&own, SETTINGS].concat()).await;
        let database = Database::create().await;
        let url = format!("--database-url={}", database.url);
        // A database is the perfect replica of itself.
        let replica = format!("--database-read-url={}", database.url);
        let own = [&url as &str, &replica, "--allow-unsafe-server"];
        let second = Program::start(&[&own, SETTINGS].concat()).await;
        let replica = "--database-read-url=postgres://revwallet@127.0.0.1:9/revwallet";
        let third = [&url as &str, replica, "--allow-unsafe-server", "--only=api"];
        let third = Program::start(&[&third, SETTINGS].concat()).await;
        let received = Received::default();
        let receiver = start_receiver(Arc::clone(&received), first.internal.clone()).await;

        let (prometheus_at, alertmanager_at) = (free_address(), free_address());
        write_configurations(
            &folder,
            &prometheus_at.to_string(),
            &alertmanager_at.to_string(),
            &receiver,
        );
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
            third_public: third.public.clone(),
            third: Mutex::new(Some(third)),
            first,
            first_folder,
            database,
            _folder: folder,
            received,
        };
        stack.scrape_programs();
        let ready = async || stack.prometheus_at.try_status("/-/ready").await == Some(200);
        eventually_within(Duration::from_secs(30), "Prometheus is ready", ready).await;
        let up = async || stack.query("sum(up)").await.first().is_some_and(|value| *value > 4.5);
        eventually_within(Duration::from_secs(30), "every target is up", up).await;
        stack
    }

    /// Lets Prometheus scrape the programs that the test has not taken out of the stack.
    pub fn scrape_programs(&self) {
        let (second, third) = (self.second.lock().unwrap(), self.third.lock().unwrap());
        let addresses: Vec<String> = [Some(&self.first), second.as_ref(), third.as_ref()]
            .into_iter()
            .flatten()
            .map(|program| program.internal.address.to_string())
            .collect();
        self.scrape(&addresses);
    }

    /// Sets the addresses that Prometheus scrapes from now on.
    pub fn scrape(&self, addresses: &[String]) {
        std::fs::write(&self.targets, json!([{ "targets": addresses }]).to_string()).unwrap();
    }

    /// Current values of an expression.
    pub async fn query(&self, expression: &str) -> Vec<f64> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let path = format!("/api/v1/query?query={query}");
        let answer = self.prometheus_at.get(&path).await;
        let body = answer.json();
        assert_eq!(body["status"], "success", "{expression}: {}", answer.text);
        let results = body["data"]["result"].as_array().cloned().unwrap_or_default();
        results.iter().map(|result| result["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }

    /// Number of exemplars of a histogram in the last minute.
    pub async fn exemplars(&self, metric: &str) -> usize {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let path = format!("/api/v1/query_exemplars?query={metric}&start={}&end={now}", now - 60);
        let body = self.prometheus_at.get(&path).await.json();
        let series = body["data"].as_array().unwrap();
        series.iter().map(|one| one["exemplars"].as_array().unwrap().len()).sum()
    }

    /// Names of all metrics.
    pub async fn metric_names(&self) -> Vec<String> {
        let body = self.prometheus_at.get("/api/v1/label/__name__/values").await.json();
        body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    /// Whether an alert of that severity fires.
    pub async fn fires(&self, alert: &str, severity: &str) -> bool {
        !self.firing(alert, severity).await.is_empty()
    }

    /// Labels of each firing alert with this name and severity.
    pub async fn firing(&self, alert: &str, severity: &str) -> Vec<Value> {
        let body = self.prometheus_at.get("/api/v1/alerts").await.json();
        let alerts = body["data"]["alerts"].as_array().unwrap();
        let firing = alerts.iter().filter(|one| {
            one["labels"]["alertname"] == alert
                && one["labels"]["severity"] == severity
                && one["state"] == "firing"
        });
        firing.map(|one| one["labels"].clone()).collect()
    }

    pub fn received(&self) -> Vec<Notification> {
        self.received.lock().unwrap().clone()
    }

    pub async fn stop(self) {
        let Self { first, second, third, database, .. } = self;
        assert!(first.stop().await.success());
        for program in [second, third] {
            if let Some(program) = program.into_inner().unwrap() {
                assert!(program.stop().await.success());
            }
        }
        database.drop().await;
    }
}

/// A process that is killed when the test ends, even if it fails.
struct Tool(Child);

impl Drop for Tool {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn spawn(name: &str, folder: &Folder, arguments: &[&str]) -> Tool {
    let log = std::fs::File::create(folder.0.join(format!("{name}.log"))).unwrap();
    let child = Command::new(tool(name))
        .args(arguments)
        .current_dir(&folder.0)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Tool(child.unwrap())
}

/// Writes the configurations of Prometheus and Alertmanager.
fn write_configurations(folder: &Folder, prometheus: &str, alertmanager: &str, receiver: &str) {
    std::fs::create_dir_all(folder.0.join("rules")).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.0.join(name), text).unwrap();
    write("rules/slos.yml", rules::slos(TIME_SCALE));
    write("rules/alerts.yml", rules::alerts(TIME_SCALE));
    write("prometheus.yml", prometheus_configuration(prometheus, alertmanager));
    let committed = std::fs::read_to_string(root().join("alertmanager/alertmanager.yml")).unwrap();
    let accelerated = committed
        .replace("http://revwallet-api:9000/internal/alerts", receiver)
        .replace("group_wait: 10s", "group_wait: 0s")
        .replace("group_interval: 2m", "group_interval: 1s");
    write("alertmanager.yml", accelerated);
}

fn prometheus_configuration(prometheus: &str, alertmanager: &str) -> String {
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

/// Starts a receiver that records notifications and forwards them to the program; returns its URL.
async fn start_receiver(received: Received, program: Client) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let router =
        Router::new().route("/alerts/{receiver}", post(receive)).with_state((received, program));
    tokio::spawn(async move { axum::serve(socket, router).await });
    format!("http://{address}/alerts")
}

async fn receive(
    State((received, program)): State<(Received, Client)>,
    Path(receiver): Path<String>,
    body: String,
) {
    let body: Value = serde_json::from_str(&body).unwrap();
    for alert in body["alerts"].as_array().unwrap() {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        received.lock().unwrap().push(Notification {
            receiver: receiver.clone(),
            alert: text(&alert["labels"]["alertname"]),
            status: text(&alert["status"]),
        });
    }
    let request = program.request(http::Method::POST, &format!("/internal/alerts/{receiver}"));
    // At the end of the test, the program stops before Alertmanager does.
    if let Ok(forwarded) = Client::try_send(request.json(&body)).await {
        assert_eq!(forwarded.status, 204, "{}", forwarded.text);
    }
}

fn create_key(settings: &[&str]) -> String {
    let create = ["api-key", "create", "--name=proof", "--scope=admin"];
    let output = command(&[settings, &create].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let key = text.lines().find(|line| line.starts_with("rwk_"));
    key.unwrap_or_else(|| panic!("no key: {text}")).to_owned()
}
