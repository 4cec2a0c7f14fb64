//! One Postgres for the whole test run, and a database for each test, cloned from a template.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use revwallet::db::embedded::{Embedded, EmbeddedArgs};
use revwallet::db::migrations;
use revwallet::jobs;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::is_long;

const TEMPLATE: &str = "migrated";

/// A database that only one test uses.
pub struct Database {
    name: String,
    pub url: String,
}

impl Database {
    pub async fn create() -> Self {
        Self::from(TEMPLATE).await
    }

    /// One that has never been migrated.
    pub async fn create_empty() -> Self {
        Self::from("template1").await
    }

    async fn from(template: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let server = server();
        execute(server, format!("create database {name} template {template}")).await;
        let url = server.url(&name);
        Self { name, url }
    }

    /// A connection of somebody else.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&server().options.clone().database(&self.name)).await.unwrap()
    }

    /// Changes the database behind the program's back.
    pub async fn execute(&self, statement: &'static str) {
        self.try_execute(statement).await.unwrap();
    }

    pub async fn try_execute(&self, statement: &'static str) -> sqlx::Result<()> {
        let mut connection = self.connect().await;
        connection.execute(statement).await?;
        connection.close().await
    }

    /// As an administrator would, or a crash.
    pub async fn end_other_sessions(&self) {
        self.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
    }

    pub async fn drop(self) {
        execute(server(), format!("drop database {} with (force)", self.name)).await;
    }
}

/// The server of this run.
pub struct Server {
    options: PgConnectOptions,
    socket_dir: PathBuf,
}

impl Server {
    fn url(&self, database: &str) -> String {
        format!("postgres://revwallet@localhost/{database}?host={}", self.socket_dir.display())
    }
}

/// Starts on first use; whatever becomes of the test run, the server ends with it.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let start = || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let (server, embedded) = runtime.block_on(start());
            // Both are needed until the end of the process.
            std::mem::forget(embedded);
            std::mem::forget(runtime);
            server
        };
        // A test's runtime may not block, a thread of its own may.
        std::thread::spawn(start).join().unwrap()
    })
}

async fn start() -> (Server, Embedded) {
    let data_dir =
        std::env::temp_dir().join(format!("revwallet-test-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&data_dir).unwrap();
    let args = EmbeddedArgs { data_dir: data_dir.clone(), postgres_bin: None };
    // Nobody misses this data after a power cut; a kill does not need the disk.
    let settings = [("fsync", "off"), ("full_page_writes", "off"), ("max_connections", "300")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let embedded = Embedded::start_with(&args, settings).await.unwrap();
    end_with_this_process(&data_dir, embedded.socket_dir());
    std::thread::spawn(end_a_run_that_hangs);
    let server = Server {
        options: embedded.connect_options(),
        socket_dir: embedded.socket_dir().to_owned(),
    };
    execute(&server, format!("create database {TEMPLATE}")).await;
    let mut template =
        PgConnection::connect_with(&server.options.clone().database(TEMPLATE)).await.unwrap();
    migrations::apply(&mut template).await.unwrap();
    template.close().await.unwrap();
    jobs::migrate(&server.options.clone().database(TEMPLATE)).await.unwrap();
    (server, embedded)
}

/// A test that never ends names itself ("has been running for over 60 seconds"), but would hold everybody up.
fn end_a_run_that_hangs() {
    const RUN_MAX: Duration = Duration::from_mins(25);
    std::thread::sleep(if is_long() { 20 * RUN_MAX } else { RUN_MAX });
    // Not a panic: that would end this thread alone.
    drop(writeln!(std::io::stderr(), "a test hangs: the run is ended after {RUN_MAX:?}"));
    std::process::exit(1);
}

/// A shell that reads a pipe which only this process holds: its end is the end of the run.
#[expect(clippy::zombie_processes, reason = "it outlives this process, to clean up behind it")]
fn end_with_this_process(data_dir: &Path, socket_dir: &Path) {
    let script = r#"
        cat >/dev/null
        pid=$(head -n 1 "$1/postgres/postmaster.pid") && kill -INT "$pid"
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        rm -rf "$1" "$2""#;
    let mut watchdog = Command::new("sh")
        .args(["-c", script, "watchdog"])
        .args([data_dir, socket_dir])
        // What ends the test run from a terminal must not end this too.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = watchdog.stdin.take().unwrap();
    pipe.flush().unwrap();
    std::mem::forget(pipe);
}

async fn execute(server: &Server, statement: String) {
    let mut connection = PgConnection::connect_with(&server.options).await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}
