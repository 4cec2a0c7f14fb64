//! A Postgres server for the whole test run, and a database per test, cloned from a migrated template. With
//! `REVWALLET_TEST_CITUS` set, the server is the coordinator of a Citus cluster, and the ledger is on two workers.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use revwallet::db::embedded::{Embedded, EmbeddedArgs};
use revwallet::db::{Pipelined, migrations};
use revwallet::jobs;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::is_long;

const TEMPLATE: &str = "migrated";

/// A database of one test.
pub struct Database {
    name: String,
    pub url: String,
}

impl Database {
    pub async fn create() -> Self {
        Self::from_template(TEMPLATE).await
    }

    /// Creates a database without migrations.
    pub async fn create_empty() -> Self {
        Self::from_template("template1").await
    }

    async fn from_template(template: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let server = server();
        for node in server.nodes() {
            execute(node, format!("create database {name} template {template}")).await;
        }
        let url = server.url(&name);
        Self { name, url }
    }

    /// Opens a connection to a server of the Citus cluster.
    pub async fn connect_to_worker(&self, host: &str) -> PgConnection {
        let worker = server().workers.iter().find(|worker| worker.host() == host);
        worker.unwrap().connect(&self.name).await
    }

    /// Opens a connection of its own, outside of the app's pool.
    pub async fn connect(&self) -> PgConnection {
        server().coordinator.connect(&self.name).await
    }

    /// Returns the options of a connection of the ledger's writer.
    pub fn pipelined(&self) -> Pipelined {
        pipelined(&self.url)
    }

    /// Runs a statement behind the program's back. A change of a table can deadlock with a statement of the program that
    /// locks a partition before its parent; then it is tried again.
    pub async fn execute(&self, statement: &str) {
        const ATTEMPTS_MAX: u32 = 5;
        const DEADLOCK: &str = "40P01";
        for attempt in 1..=ATTEMPTS_MAX {
            match self.try_execute(statement).await {
                Err(sqlx::Error::Database(error))
                    if attempt < ATTEMPTS_MAX && error.code().as_deref() == Some(DEADLOCK) => {}
                outcome => return outcome.unwrap(),
            }
        }
    }

    pub async fn try_execute(&self, statement: &str) -> sqlx::Result<()> {
        let mut connection = self.connect().await;
        connection.execute(AssertSqlSafe(statement.to_owned())).await?;
        connection.close().await
    }

    /// Terminates every other session, as an administrator or a crash would.
    pub async fn end_other_sessions(&self) {
        self.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
    }

    pub async fn drop(self) {
        for node in server().nodes() {
            execute(node, format!("drop database {} with (force)", self.name)).await;
        }
    }
}

/// The Postgres server of this test run.
pub struct Server {
    coordinator: Node,
    /// Servers that the ledger is distributed over; usually none.
    workers: Vec<Node>,
}

impl Server {
    fn url(&self, database: &str) -> String {
        format!("postgres://revwallet@localhost/{database}?host={}", self.coordinator.host())
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.coordinator).chain(&self.workers)
    }
}

/// Process of Postgres that has a part of the databases.
struct Node {
    options: PgConnectOptions,
    socket_dir: PathBuf,
}

impl Node {
    fn host(&self) -> String {
        self.socket_dir.display().to_string()
    }

    async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect_with(&self.options.clone().database(database)).await.unwrap()
    }
}

/// Returns whether the ledger of this test run is distributed over a Citus cluster.
pub fn is_distributed() -> bool {
    std::env::var_os("REVWALLET_TEST_CITUS").is_some()
}

/// Returns the options of a connection of the ledger's writer.
pub fn pipelined(url: &str) -> Pipelined {
    let mut options: Pipelined = url.parse().unwrap();
    if is_distributed() {
        options.set_plan_cache_mode("force_custom_plan");
    }
    options
}

/// Kills a session's process on a server of the Citus cluster: the coordinator is server 0, then come the two workers.
/// Postgres then ends all sessions of the server, and recovers from its write-ahead log.
pub async fn crash_server(index: usize) {
    let node = server().nodes().nth(index).unwrap();
    // The server may not have recovered from the last crash.
    let Ok(mut session) = PgConnection::connect_with(&node.options).await else { return };
    let process: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut session).await.unwrap();
    let killed = Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap();
    assert!(killed.success());
}

/// Returns the server and starts it on first use; it ends with the test run, however that ends.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let start = || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let (server, embedded) = runtime.block_on(start());
            // Both must live until the process ends.
            std::mem::forget(embedded);
            std::mem::forget(runtime);
            server
        };
        // The runtime of a test must not block, so a separate thread starts the server.
        std::thread::spawn(start).join().unwrap()
    })
}

async fn start() -> (Server, Vec<Embedded>) {
    std::thread::spawn(abort_hung_run);
    let is_distributed = is_distributed();
    let (coordinator, embedded) = start_node(is_distributed).await;
    let mut server = Server { coordinator, workers: Vec::new() };
    let mut processes = vec![embedded];
    if is_distributed {
        for _ in 0..2 {
            let (worker, embedded) = start_node(is_distributed).await;
            server.workers.push(worker);
            processes.push(embedded);
        }
    }
    create_template(&server, is_distributed).await;
    (server, processes)
}

async fn start_node(has_citus: bool) -> (Node, Embedded) {
    let data_dir =
        std::env::temp_dir().join(format!("revwallet-test-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&data_dir).unwrap();
    let args = EmbeddedArgs { data_dir: data_dir.clone(), postgres_bin: None };
    // The data need not survive a power failure, and a killed process does not depend on `fsync`.
    let mut settings =
        vec![("fsync", "off"), ("full_page_writes", "off"), ("max_connections", "900")];
    if has_citus {
        settings.extend([
            ("shared_preload_libraries", "citus"),
            ("max_prepared_transactions", "900"),
            // Citus has one for each database.
            ("max_worker_processes", "100"),
            ("citus.shard_count", "4"),
            ("citus.node_conninfo", "sslmode=prefer"),
            ("citus.recover_2pc_interval", "1s"),
        ]);
    }
    let settings =
        settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let embedded = Embedded::start_with(&args, settings).await.unwrap();
    spawn_cleanup(&data_dir, embedded.socket_dir());
    let node =
        Node { options: embedded.connect_options(), socket_dir: embedded.socket_dir().to_owned() };
    (node, embedded)
}

/// Creates the migrated database that the databases of tests are cloned from.
async fn create_template(server: &Server, is_distributed: bool) {
    for node in server.nodes() {
        execute(node, format!("create database {TEMPLATE}")).await;
        if is_distributed {
            node.connect(TEMPLATE).await.execute("create extension citus").await.unwrap();
        }
    }
    let mut template = server.coordinator.connect(TEMPLATE).await;
    for (node, function) in server.nodes().zip(
        std::iter::once("citus_set_coordinator_host").chain(std::iter::repeat("citus_add_node")),
    ) {
        if is_distributed {
            let add = format!("select {function}('{}', 5432)", node.host());
            template.execute(AssertSqlSafe(add)).await.unwrap();
        }
    }
    migrations::apply(&mut template).await.unwrap();
    jobs::migrate(&server.coordinator.options.clone().database(TEMPLATE)).await.unwrap();
    if is_distributed {
        migrations::distribute(&mut template).await.unwrap();
    }
    if let Ok(books) = std::env::var("REVWALLET_TEST_BOOKS") {
        let create = format!("select ledger.create_books({books}, 100000000)");
        template.execute(AssertSqlSafe(create)).await.unwrap();
    }
    template.close().await.unwrap();
    if is_distributed {
        // A database cannot be cloned while a session uses it, such as that of the maintenance of Citus.
        for node in server.nodes() {
            execute(node, format!("alter database {TEMPLATE} allow_connections false")).await;
            let end = format!(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{TEMPLATE}'"
            );
            execute(node, end).await;
        }
    }
}

/// Aborts a test run that hangs; the test runner has printed the name of the slow test by then.
fn abort_hung_run() {
    const RUN_MAX: Duration = Duration::from_mins(25);
    std::thread::sleep(if is_long() { 20 * RUN_MAX } else { RUN_MAX });
    // A panic would end this thread alone.
    drop(writeln!(std::io::stderr(), "a test hangs: aborting the run after {RUN_MAX:?}"));
    std::process::exit(1);
}

/// Starts a shell that stops the server once this process ends: it waits for the end of a pipe that only this process holds.
#[expect(clippy::zombie_processes, reason = "the shell outlives this process to clean up")]
fn spawn_cleanup(data_dir: &Path, socket_dir: &Path) {
    let script = r#"
        cat >/dev/null
        pid=$(head -n 1 "$1/postgres/postmaster.pid") && kill -INT "$pid"
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        rm -rf "$1" "$2""#;
    let mut watchdog = Command::new("sh")
        .args(["-c", script, "watchdog"])
        .args([data_dir, socket_dir])
        // A signal from the terminal to the test run must not reach the shell.
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

async fn execute(node: &Node, statement: String) {
    let mut connection = PgConnection::connect_with(&node.options).await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

/// Runs a PostgreSQL client program of the newest installed version.
pub fn run_client(command_line: &str) {
    let script =
        format!("source scripts/lib/setup.sh && bin=$(postgres_bin) && \"$bin\"/{command_line}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{command_line}: {}", String::from_utf8_lossy(&output.stderr));
}
