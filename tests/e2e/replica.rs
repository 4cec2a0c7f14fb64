//! Reads of clients that accept an older state (`?stale=ok`), on a real streaming replica.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::Method;
use revwallet::app::Running;
use revwallet::db::embedded::{Binaries, Embedded, EmbeddedArgs, installed};
use revwallet::telemetry::Telemetry;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::harness::postgres::Database;
use crate::harness::{Client, Logs, Program, Response, config, eventually, run, run_with};

/// A primary and its replica, in a folder that is removed at the end.
struct Servers {
    folder: PathBuf,
    primary: Embedded,
    replica: Embedded,
}

impl Servers {
    async fn start() -> Self {
        let name = format!("revwallet-replica-{}", uuid::Uuid::new_v4().simple());
        let folder = std::env::temp_dir().join(name);
        let primary = start_server(&folder.join("primary")).await;
        copy(&primary, &folder).await;
        let replica = start_server(&folder.join("replica")).await;
        Self { folder, primary, replica }
    }

    async fn start_replica(&mut self) {
        self.replica = start_server(&self.folder.join("replica")).await;
    }

    /// Executes a function on the replica, as an administrator.
    async fn on_replica(&self, function: &str) {
        let mut db = PgConnection::connect_with(&self.replica.connect_options()).await.unwrap();
        let statement = AssertSqlSafe(format!("select {function}"));
        sqlx::query(statement).execute(&mut db).await.unwrap();
    }

    async fn stop(self) {
        self.replica.stop().await;
        self.primary.stop().await;
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

async fn start_server(data_dir: &Path) -> Embedded {
    std::fs::create_dir_all(data_dir).unwrap();
    let args = EmbeddedArgs { data_dir: data_dir.to_owned(), postgres_bin: None };
    let settings = [("fsync", "off"), ("shared_buffers", "16MB")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Embedded::start_with(&args, settings.to_vec()).await.unwrap()
}

/// Copies the primary to the data directory of its replica.
async fn copy(primary: &Embedded, folder: &Path) {
    let programs = installed().await.unwrap();
    let is_same = |binaries: &&Binaries| {
        primary.version() == format!("{}.{}", binaries.major, binaries.minor)
    };
    let program = programs.iter().find(is_same).unwrap().folder.join("pg_basebackup");
    // Postgres refuses to run as root, so the files belong to the user that runs the primary.
    let owner = folder.join("primary/postgres").metadata().unwrap();
    let home = folder.join("replica");
    std::fs::create_dir_all(&home).unwrap();
    chown(&home, Some(owner.uid()), Some(owner.gid())).unwrap();
    let mut command = Command::new(program);
    command.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--no-password"]);
    command.arg("--host").arg(primary.socket_dir()).args(["--username", primary.user()]);
    command.arg("--pgdata").arg(home.join("postgres")).current_dir("/");
    if nix::unistd::geteuid().as_raw() != owner.uid() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn url(server: &Embedded) -> String {
    let (user, database) = (server.user(), server.database());
    format!("postgres://{user}@localhost/{database}?host={}", server.socket_dir().display())
}

/// The app on a primary and its replica.
struct App {
    running: Running,
    client: Client,
    internal: Client,
    logs: Logs,
}

impl App {
    async fn start(servers: &Servers) -> (Self, impl Sized + use<>) {
        let config = config(&[
            &format!("--database-url={}", url(&servers.primary)),
            &format!("--database-read-url={}", url(&servers.replica)),
            "--database-read-lag-max=2s",
        ]);
        let logs = Logs::default();
        let (telemetry, guard) = Telemetry::install_here(&config.telemetry, logs.clone());
        let running = revwallet::app::App::start(&config, &telemetry.metrics).await.unwrap();
        let client = Client::new(running.address.unwrap());
        let internal = Client::new(running.internal_address);
        (Self { running, client, internal, logs }, (telemetry, guard))
    }

    async fn metric(&self, series: &str) -> f64 {
        let metrics = self.internal.get("/metrics").await.text;
        let sample = metrics.lines().find_map(|line| line.strip_prefix(series));
        sample.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Number of reads with `?stale=ok`, by who answered them.
    async fn reads(&self, outcome: &str) -> f64 {
        self.metric(&format!("wallet_replica_reads_total{{outcome=\"{outcome}\"}}")).await
    }
}

/// Seq of the last transfer that a read takes into account.
fn seq(response: &Response) -> i64 {
    response.header("book-position").split('.').nth(2).unwrap().parse().unwrap()
}

#[tokio::test]
async fn stale_reads_come_from_the_replica_unless_it_is_behind_or_gone() {
    let mut servers = Servers::start().await;
    let (app, telemetry) = App::start(&servers).await;
    let client = &app.client;
    let opened = client.post("/wallet", json!({ "owner": "ada", "currency": "EUR" })).await;
    let wallet = opened.json()["id"].as_str().unwrap().to_owned();
    let deposit = async || {
        let body = json!({ "id": wallet, "amount": "1.00" });
        assert_eq!(client.post("/wallet/deposit", body).await.status, 200);
    };
    let read = async |query: &str| {
        let response = client.get(&format!("/wallet/{wallet}{query}")).await;
        assert_eq!(response.status, 200, "{}", response.text);
        response
    };
    let balance = |response: &Response| response.json()["balance"].to_string();
    deposit().await;

    eventually("the replica answers with the first deposit", async || {
        let before = app.reads("replica").await;
        let stale = client.get(&format!("/wallet/{wallet}?stale=ok")).await;
        app.reads("replica").await > before && balance(&stale) == "1.0"
    })
    .await;

    // The replica stands still, but is not far behind yet.
    servers.on_replica("pg_wal_replay_pause()").await;
    deposit().await;
    let (fresh, stale) = (read("").await, read("?stale=ok").await);
    assert_eq!((balance(&fresh), balance(&stale)), ("2.0".to_owned(), "1.0".to_owned()));
    assert!(seq(&stale) < seq(&fresh));
    let history = read("/history?stale=ok").await;
    assert_eq!(
        history.json().as_array().map(Vec::len),
        Some(2),
        "the opening and one deposit: {}",
        history.text
    );

    eventually("the replica is too far behind", async || {
        balance(&read("?stale=ok").await) == "2.0" && app.reads("behind").await > 0.0
    })
    .await;
    assert!(app.metric("wallet_replica_lag_seconds").await > 2.0);

    servers.on_replica("pg_wal_replay_resume()").await;
    eventually("the replica has caught up", async || {
        let before = app.reads("replica").await;
        let stale = read("?stale=ok").await;
        app.reads("replica").await > before && seq(&stale) >= seq(&fresh)
    })
    .await;

    servers.replica.stop().await;
    deposit().await;
    for _ in 0..3 {
        assert_eq!(balance(&read("?stale=ok").await), "3.0");
    }
    eventually("the replica is known to be gone", async || {
        read("?stale=ok").await;
        app.reads("unavailable").await > 0.0
    })
    .await;

    servers.start_replica().await;
    eventually("the replica answers again", async || {
        let before = app.reads("replica").await;
        let stale = read("?stale=ok").await;
        app.reads("replica").await > before && balance(&stale) == "3.0"
    })
    .await;
    for event in ["replica.usable", "replica.behind", "replica.unavailable"] {
        assert!(app.logs.find("event", event).is_some(), "{event}");
    }
    assert!(app.running.stop().await);
    drop(telemetry);
    servers.stop().await;
}

#[tokio::test]
async fn a_database_that_is_no_copy_of_the_primary_answers_no_reads() {
    let other = Database::create().await;
    let program = Program::start(&[
        &format!("--database-url={}", other.url),
        "--allow-unsafe-server",
        "--access=open",
    ])
    .await;
    let opened = program.public.post("/wallet", json!({ "owner": "eve", "currency": "EUR" })).await;
    assert_eq!(opened.status, 201);
    assert!(program.stop().await.success());

    run_with(&[&format!("--database-read-url={}", other.url)], async |app| {
        app.open_wallet("EUR", "0").await;
        // Also before the other database was looked at.
        let wallets = app.get("/wallet?stale=ok").await.json();
        assert_eq!(wallets[0]["owner"], "ada");
        eventually("the other database is refused", async || {
            let refused = app.logs.find("event", "replica.unavailable");
            refused.is_some_and(|line| {
                line["message"].as_str().unwrap().contains("the last seal of the replica")
            })
        })
        .await;
        let wallets = app.get("/wallet?stale=ok").await.json();
        let wallets = wallets.as_array().unwrap().iter();
        let owners: Vec<&Value> = wallets.map(|wallet| &wallet["owner"]).collect();
        assert_eq!(owners, ["ada"]);
    })
    .await;
    other.drop().await;
}

#[tokio::test]
async fn only_reads_may_be_stale_and_their_links_keep_it() {
    run(async |app| {
        for _ in 0..2 {
            app.open_wallet("EUR", "0").await;
        }

        let page = app.get("/wallet?limit=1&stale=ok").await;
        assert_eq!(page.status, 200, "{}", page.text);
        assert!(
            page.header("link").contains("&stale=ok>; rel=\"next\""),
            "{}",
            page.header("link")
        );
        let refused = app.get("/wallet?stale=yes").await;
        assert_eq!(refused.json()["errors"][0]["pointer"], "?stale", "{}", refused.text);
        assert_eq!(refused.json()["errors"][0]["detail"], "must be ok, or absent");
        let body = json!({ "id": "1", "amount": "1.00" });
        let request = app.request(Method::POST, "/wallet/deposit?stale=ok").json(&body);
        assert_eq!(app.send(request).await.status, 422);
    })
    .await;
}
