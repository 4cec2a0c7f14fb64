//! Alerts on metrics of exporters: provoked on a real system, and read from the real exporter.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::{Child, Command, Stdio};

use sqlx::{Connection, Executor, PgConnection};

use crate::generated_files::root;
use crate::harness::program::{Folder, signal};
use crate::harness::server::Cluster;
use crate::harness::{Client, eventually, free_address};
use crate::source::alerts;
use crate::tools;

/// The exporter, which stops when it is dropped.
struct Exporter {
    child: Child,
    client: Client,
}

impl Exporter {
    /// Starts an exporter with its setting for what it watches, and waits until a series begins like `awaited`.
    async fn start(name: &str, (setting, source): (&str, &str), awaited: &str) -> Self {
        let program = shell_output(&format!("source scripts/lib/setup.sh && exporter_tool {name}"));
        let address = free_address();
        let child = Command::new(program)
            .arg(format!("--web.listen-address={address}"))
            .env(setting, source)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let exporter = Self { child, client: Client::new(address) };
        eventually("the exporter sees what it watches", async || {
            let series = exporter.scrape().await;
            series.iter().any(|(series, value)| format!("{series} {value}").starts_with(awaited))
        })
        .await;
        exporter
    }

    /// Every series and its value.
    async fn scrape(&self) -> BTreeMap<String, String> {
        let request = self.client.request(reqwest::Method::GET, "/metrics");
        // Nothing listens right after the start.
        let Ok(response) = Client::try_send(request).await else { return BTreeMap::new() };
        let lines = response.text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, value)| (series.to_owned(), value.to_owned()))
            .collect()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Output of a shell command in the root of the repository, without the end of its line.
fn shell_output(script: &str) -> String {
    let output = Command::new("bash").args(["-c", script]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether the alert fires on these series, with a lower threshold.
fn fires(name: &str, threshold: (&str, &str), series: &[(String, String)]) -> bool {
    let alert = alerts::all().find(|alert| alert.name == name).unwrap();
    assert!(alert.expression.contains(threshold.0), "{}", alert.expression);
    let expression = alert.expression.replace(threshold.0, threshold.1);
    let folder = Folder::new();
    let mut test =
        String::from("evaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n");
    for (series, values) in series {
        let series = serde_json::to_string(&series).unwrap();
        writeln!(test, "      - {{ series: {series}, values: '{values}' }}").unwrap();
    }
    let condition = serde_json::to_string(&format!("count({expression}) > bool 0")).unwrap();
    write!(test, "    promql_expr_test:\n      - expr: {condition}\n        eval_time: 20m\n        exp_samples: [{{ labels: '{{}}', value: 1 }}]\n").unwrap();
    let path = folder.0.join("test.yml");
    std::fs::write(&path, test).unwrap();
    tools::run("promtool", &["test", "rules", path.to_str().unwrap()]).is_ok()
}

/// The metric of a series.
fn name_of(series: &str) -> &str {
    series.split('{').next().unwrap_or_default()
}

/// The series of a metric, each with its value of two scrapes.
fn history(
    metric: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let series = after.iter().filter(|(series, _)| name_of(series) == metric);
    series
        .map(|(series, value)| {
            let first = before.get(series).unwrap_or(value);
            (series.clone(), format!("{first}x10 {value}x30"))
        })
        .collect()
}

#[tokio::test]
async fn alerts_on_postgres_fire_on_what_its_exporter_says() {
    let settings =
        ["wal_level=logical", "archive_mode=on", "archive_command=false", "max_wal_size=64MB"];
    let server = Cluster::init(&["-U", "revwallet", "--auth=trust"]).start(&settings).await;
    let url = format!("postgres://revwallet@{}/postgres", server.address);
    let mut db = PgConnection::connect(&url).await.unwrap();
    let mut long = PgConnection::connect(&url).await.unwrap();
    let source = format!("{url}?sslmode=disable");
    let exporter = Exporter::start("postgres", ("DATA_SOURCE_NAME", &source), "pg_up 1").await;
    let healthy = exporter.scrape().await;

    // A slot without a reader.
    db.execute("select pg_create_physical_replication_slot('abandoned', true)").await.unwrap();
    long.execute("begin; select txid_current()").await.unwrap();
    db.execute(
        "create table filler as select n, repeat('x', 100) from generate_series(1, 50000) n",
    )
    .await
    .unwrap();
    db.execute("select pg_switch_wal()").await.unwrap();
    let failed = |scrape: &BTreeMap<String, String>| {
        let mut series =
            scrape.iter().filter(|(series, _)| name_of(series) == "pg_stat_archiver_failed_count");
        series.find_map(|(_, count)| count.parse::<f64>().ok())
    };
    let mut now = BTreeMap::new();
    eventually("archiving has failed", async || {
        now = exporter.scrape().await;
        failed(&now) > failed(&healthy)
    })
    .await;

    for (name, threshold, metric) in [
        (
            "ReplicationSlotLag",
            ("10 * 1024 * 1024 * 1024", "1024 * 1024"),
            "pg_replication_slots_pg_wal_lsn_diff",
        ),
        ("LongTransactions", ("> 600", "> 0"), "pg_stat_activity_max_tx_duration"),
        ("WalArchiveFailing", ("> 0", "> 0"), "pg_stat_archiver_failed_count"),
    ] {
        let series = history(metric, &healthy, &now);
        assert!(!series.is_empty(), "the exporter has no {metric}");
        assert!(fires(name, threshold, &series), "{name}: {series:?}");
    }
    // The same slot, as long as it retains little.
    let slot = history("pg_replication_slots_pg_wal_lsn_diff", &healthy, &now);
    assert!(!fires("ReplicationSlotLag", ("10 * 1024", "10 * 1024"), &slot));
}

#[tokio::test]
async fn the_alert_on_a_disk_fires_on_what_its_exporter_says() {
    const METRIC: &str = "node_filesystem_avail_bytes";
    // Far enough ahead for what the test writes.
    const HORIZON: (&str, &str) = ("4 * 3600", "1e9");
    let exporter = Exporter::start("node", ("TZ", "UTC"), METRIC).await;
    let healthy = exporter.scrape().await;
    // Below the build, because a folder for temporary files may be in memory.
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("filler");
    let bytes = vec![1; 64 * 1024 * 1024];
    std::fs::write(&file, &bytes).unwrap();
    std::fs::File::open(&file).unwrap().sync_all().unwrap();

    let full = exporter.scrape().await;

    std::fs::remove_file(&file).unwrap();
    let filling = history(METRIC, &healthy, &full);
    assert!(fires("DiskFillsIn4h", HORIZON, &filling), "{filling:?}");
    assert!(!fires("DiskFillsIn4h", HORIZON, &history(METRIC, &healthy, &healthy)));
}

#[tokio::test]
async fn the_alert_on_the_edge_fires_on_what_its_exporter_says() {
    const AS_IT_IS: (&str, &str) = ("== 0", "== 0");
    let folder = Folder::new();
    let (path, address) = (folder.0.display(), free_address());
    let configuration = folder.0.join("nginx.conf");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {path}/{name};"))
        .concat();
    let text = format!(
        "daemon off; pid {path}/pid; error_log {path}/log;
        events {{}}
        http {{ {temporary} access_log off; server {{ listen {address}; location /status {{ stub_status; }} }} }}"
    );
    std::fs::write(&configuration, text).unwrap();
    let nginx = shell_output("source scripts/lib/edge.sh && edge_tools") + "/nginx";
    let mut edge = Command::new(nginx)
        .args(["-e", "stderr", "-p", folder.0.to_str().unwrap(), "-c"])
        .arg(&configuration)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let uri = format!("http://{address}/status");
    let exporter = Exporter::start("nginx", ("SCRAPE_URI", &uri), "nginx_up 1").await;
    let healthy = exporter.scrape().await;

    signal(edge.id(), "TERM");
    edge.wait().unwrap();

    let down = exporter.scrape().await;
    assert!(!fires("EdgeDown", AS_IT_IS, &history("nginx_up", &healthy, &healthy)));
    assert!(fires("EdgeDown", AS_IT_IS, &history("nginx_up", &healthy, &down)));
}
