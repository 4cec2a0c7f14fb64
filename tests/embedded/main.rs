//! The private Postgres: whatever happened before, a start succeeds; after a stop, nothing is left.

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

/// Longest that anything here may take.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A data directory that is removed at the end, with its cluster wherever that is.
struct Folder {
    top: PathBuf,
    data_dir: PathBuf,
}

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let top =
            std::env::temp_dir().join(format!("revwallet-test-{}-{number}", std::process::id()));
        fs::create_dir(&top).expect("the folder is new");
        Self { data_dir: top.join("data"), top }
    }

    /// A data directory below folders with long names.
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
        Embedded::start_with(args, quick()).await
    }

    async fn refusal(&self, args: &EmbeddedArgs) -> String {
        let sentence = format!("{:#}", self.try_start(args).await.expect_err("it cannot start"));
        assert!(!sentence.contains('\n'), "one sentence: {sentence}");
        sentence
    }

    fn cluster(&self) -> PathBuf {
        self.data_dir.join("postgres").canonicalize().expect("there is a cluster")
    }

    fn pid(&self) -> i32 {
        let text =
            fs::read_to_string(self.cluster().join("postmaster.pid")).expect("Postgres runs");
        text.lines().next().expect("a line").parse().expect("a number")
    }

    /// Every process of the cluster, by the folder they work in: independent of how the program finds them.
    fn processes(&self) -> Vec<i32> {
        let cluster = self.cluster();
        let folders = fs::read_dir("/proc").expect("Linux").flatten();
        let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == cluster)
        })
        .collect()
    }

    /// The kernel may still be busy with the end of a process that was killed.
    async fn nothing_is_left(&self) {
        let began = Instant::now();
        while !self.processes().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(1), "{:?} are left", self.processes());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// A program of its own that starts or joins this Postgres and does not stop it.
    async fn other_program(&self) -> Child {
        let mut child = self.spawn_other_program();
        let began = Instant::now();
        while !self.top.join("held").exists() {
            assert!(
                child.try_wait().expect("it is ours").is_none() && began.elapsed() < WAIT_MAX,
                "it does not hold"
            );
            sleep(Duration::from_millis(5)).await;
        }
        fs::remove_file(self.top.join("held")).expect("it is there");
        child
    }

    fn spawn_other_program(&self) -> Child {
        Command::new(std::env::current_exe().expect("this program has a path"))
            .args(["--exact", "another_program_holds_a_postgres_when_asked", "--nocapture"])
            .env("HOLD_DATA_DIR", &self.data_dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("this program starts again")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Ok(cluster) = self.data_dir.join("postgres").canonicalize()
            && !cluster.starts_with(&self.top)
        {
            fs::remove_dir_all(cluster.parent().expect("it has a home")).ok();
        }
        fs::remove_dir_all(&self.top).ok();
    }
}

/// Settings that make a test quick and that no server with money in it may have.
fn quick() -> Vec<(String, String)> {
    vec![("fsync".into(), "off".into()), ("shared_buffers".into(), "16MB".into())]
}

async fn connect(embedded: &Embedded) -> PgConnection {
    PgConnection::connect_with(&embedded.connect_options()).await.expect("it accepts connections")
}

async fn execute(embedded: &Embedded, sql: &'static str) {
    sqlx::query(sql).execute(&mut connect(embedded).await).await.expect("it executes");
}

async fn count_notes(embedded: &Embedded) -> i64 {
    sqlx::query_scalar("select count(*) from note")
        .fetch_one(&mut connect(embedded).await)
        .await
        .expect("it counts")
}

/// Waits until Postgres answers again.
async fn eventually_accepts(embedded: &Embedded) {
    let began = Instant::now();
    while PgConnection::connect_with(&embedded.connect_options()).await.is_err() {
        assert!(began.elapsed() < WAIT_MAX, "it does not accept connections again");
        sleep(Duration::from_millis(10)).await;
    }
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it is there");
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("it is ours");
}

#[derive(Parser)]
struct Hold {
    #[arg(env = "HOLD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

#[tokio::test]
async fn another_program_holds_a_postgres_when_asked() {
    let Some(data_dir) = Hold::parse_from(["hold"]).data_dir else { return };
    let args = EmbeddedArgs { data_dir: data_dir.clone(), postgres_bin: None };

    let embedded = Embedded::start_with(&args, quick()).await.expect("it starts");

    File::create(data_dir.parent().expect("a folder").join("held")).expect("it is new");
    embedded.supervise(CancellationToken::new()).await;
}
