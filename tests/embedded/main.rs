//! The embedded Postgres: a start succeeds after any crash, and a stop leaves no process behind.

mod data_dirs;
mod lifecycle;
mod refusals;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use revwallet::db::embedded::{Embedded, EmbeddedArgs, installed};
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longest wait for any condition in these tests.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A data directory that is removed at the end, together with its cluster.
struct Folder {
    top: PathBuf,
    data_dir: PathBuf,
}

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let top =
            std::env::temp_dir().join(format!("revwallet-test-{}-{number}", std::process::id()));
        fs::create_dir(&top).expect("the folder is new");
        Self { data_dir: top.join("data"), top }
    }

    /// Creates a data directory whose path has at least `length` bytes.
    fn deep(length: usize) -> Self {
        let mut folder = Self::new();
        while folder.data_dir.as_os_str().len() < length {
            folder.data_dir.push("x".repeat(200.min(length - folder.data_dir.as_os_str().len())));
        }
        folder
    }

    fn args(&self) -> EmbeddedArgs {
        EmbeddedArgs { data_dir: self.data_dir.clone(), postgres_bin: None }
    }

    async fn start(&self) -> Embedded {
        self.try_start(&self.args()).await.expect("Postgres starts")
    }

    async fn try_start(&self, args: &EmbeddedArgs) -> anyhow::Result<Embedded> {
        Embedded::start_with(args, test_settings()).await
    }

    /// Starts Postgres, which must fail, and returns the error as one sentence.
    async fn start_error(&self, args: &EmbeddedArgs) -> String {
        let error = format!("{:#}", self.try_start(args).await.expect_err("the start fails"));
        assert!(!error.contains('\n'), "more than one line: {error}");
        error
    }

    fn cluster(&self) -> PathBuf {
        self.data_dir.join("postgres").canonicalize().expect("the cluster exists")
    }

    /// Returns the process id of the postmaster.
    fn pid(&self) -> i32 {
        let text =
            fs::read_to_string(self.cluster().join("postmaster.pid")).expect("Postgres runs");
        text.lines().next().expect("a line").parse().expect("a number")
    }

    /// Returns every process of the cluster by working directory, independently of the code under test.
    fn processes(&self) -> Vec<i32> {
        let cluster = self.cluster();
        let folders = fs::read_dir("/proc").expect("Linux").flatten();
        let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == cluster)
        })
        .collect()
    }

    /// Asserts that no process is left; a killed process may take a moment to disappear.
    async fn assert_no_process(&self) {
        let started = Instant::now();
        while !self.processes().is_empty() {
            assert!(started.elapsed() < Duration::from_secs(1), "{:?} still run", self.processes());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts another process that runs or joins this Postgres until it is killed, and waits until it has.
    async fn start_holder(&self) -> Child {
        let mut child = self.spawn_holder();
        let started = Instant::now();
        while !self.top.join("held").exists() {
            assert!(
                child.try_wait().expect("the child is ours").is_none()
                    && started.elapsed() < WAIT_MAX,
                "the other process has not started Postgres"
            );
            sleep(Duration::from_millis(5)).await;
        }
        fs::remove_file(self.top.join("held")).expect("the file exists");
        child
    }

    fn spawn_holder(&self) -> Child {
        Command::new(std::env::current_exe().expect("the test binary has a path"))
            .args(["--exact", "helper_process_that_holds_a_postgres", "--nocapture"])
            .env("HOLD_DATA_DIR", &self.data_dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("the test binary starts")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Ok(cluster) = self.data_dir.join("postgres").canonicalize()
            && !cluster.starts_with(&self.top)
        {
            fs::remove_dir_all(cluster.parent().expect("the cluster has a parent folder")).ok();
        }
        fs::remove_dir_all(&self.top).ok();
    }
}

/// Settings that make tests fast and are unsafe in production.
fn test_settings() -> Vec<(String, String)> {
    vec![("fsync".into(), "off".into()), ("shared_buffers".into(), "16MB".into())]
}

async fn connect(embedded: &Embedded) -> PgConnection {
    PgConnection::connect_with(&embedded.connect_options())
        .await
        .expect("Postgres accepts connections")
}

async fn execute(embedded: &Embedded, sql: &'static str) {
    sqlx::query(sql).execute(&mut connect(embedded).await).await.expect("the statement succeeds");
}

async fn count_notes(embedded: &Embedded) -> i64 {
    sqlx::query_scalar("select count(*) from note")
        .fetch_one(&mut connect(embedded).await)
        .await
        .expect("the query succeeds")
}

/// Waits until Postgres accepts connections again.
async fn wait_until_ready(embedded: &Embedded) {
    let started = Instant::now();
    while PgConnection::connect_with(&embedded.connect_options()).await.is_err() {
        assert!(started.elapsed() < WAIT_MAX, "Postgres does not accept connections again");
        sleep(Duration::from_millis(10)).await;
    }
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("the process exists");
}

/// Writes an executable script.
fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("the folder is writable");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("the file is ours");
}

/// Environment of [`helper_process_that_holds_a_postgres`].
#[derive(Parser)]
struct HolderArgs {
    #[arg(env = "HOLD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

/// Not a check: the process that [`Folder::spawn_holder`] starts. Without its environment it returns at once.
#[tokio::test]
async fn helper_process_that_holds_a_postgres() {
    let Some(data_dir) = HolderArgs::parse_from(["holder"]).data_dir else { return };
    let args = EmbeddedArgs { data_dir: data_dir.clone(), postgres_bin: None };

    let embedded = Embedded::start_with(&args, test_settings()).await.expect("Postgres starts");

    File::create(data_dir.parent().expect("it has a parent").join("held"))
        .expect("the file is new");
    embedded.supervise(CancellationToken::new()).await;
}
