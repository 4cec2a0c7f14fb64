//! Making a cluster, and the settings it runs with.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, anyhow, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tracing::info;

use super::binaries::Binaries;
use super::connect::USER;
use super::data_dir::DataDir;

/// What a cluster is called until it is complete; a number follows.
const UNFINISHED: &str = "postgres.new.";

/// Sets apart the attempts of one program.
static ATTEMPT: AtomicU32 = AtomicU32::new(0);

/// The major version that made a cluster; nothing when there is no cluster yet.
pub(super) fn made_by(cluster: &Path) -> anyhow::Result<Option<u32>> {
    let path = cluster.join("PG_VERSION");
    if !path.exists() {
        return Ok(None);
    }
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(text.trim().parse().with_context(|| format!("{} is damaged", path.display()))?))
}

/// Makes the cluster: beside its place, and moved there when it is complete and on disk.
pub(super) async fn create(place: &DataDir, binaries: &Binaries, sync: bool) -> anyhow::Result<()> {
    info!(
        "creating a private Postgres {}.{} in {}",
        binaries.major,
        binaries.minor,
        place.cluster.display()
    );
    remove_unfinished(&place.home);
    let number = ATTEMPT.fetch_add(1, Ordering::Relaxed);
    let unfinished = place.home.join(format!("{UNFINISHED}{}.{number}", std::process::id()));
    let failed = |error: std::io::Error| {
        anyhow!(
            "the data directory cannot be written ({}: {error}): make it writable, or choose another with --data-dir or REVWALLET_DATA_DIR",
            unfinished.display()
        )
    };
    DirBuilder::new().mode(0o700).create(&unfinished).map_err(failed)?;
    place.account.give(&unfinished)?;
    if let Err(error) = initdb(place, binaries, &unfinished, sync).await {
        remove_unfinished(&place.home);
        return Err(error);
    }
    fs::rename(&unfinished, &place.cluster).map_err(failed)?;
    File::open(&place.home).and_then(|home| home.sync_all()).map_err(failed)
}

async fn initdb(
    place: &DataDir,
    binaries: &Binaries,
    folder: &Path,
    sync: bool,
) -> anyhow::Result<()> {
    let mut command = place.account.command(&binaries.folder.join("initdb"));
    command.arg("-D").arg(folder).arg(format!("--username={USER}"));
    command.args([
        "--encoding=UTF8",
        "--no-locale",
        "--data-checksums",
        "--auth=trust",
        "--no-instructions",
    ]);
    if !sync {
        command.arg("--no-sync");
    }
    // It writes into a pipe: when the program is killed, the next line that it writes ends it too.
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child =
        child.with_context(|| format!("cannot run {}/initdb", binaries.folder.display()))?;
    let group = Group(child.id());
    let output = child.wait_with_output().await.context("cannot wait for initdb")?;
    group.ended();
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().rfind(|line| line.contains("error:") || line.contains("FATAL:"));
    let reason = line.or_else(|| text.lines().last()).unwrap_or("it said nothing").trim();
    bail!(
        "initdb could not make a cluster in {} ({reason}): choose another folder with --data-dir or another PostgreSQL with REVWALLET_POSTGRES_BIN",
        place.home.display()
    )
}

/// A process group that is killed when nobody waits for it any more.
struct Group(Option<u32>);

impl Group {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by itself meanwhile.
            killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

/// Removes what interrupted attempts left. One that cannot be removed yet is of no harm: each attempt has a name of its own.
fn remove_unfinished(home: &Path) {
    let entries = fs::read_dir(home).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED))
    {
        drop(fs::remove_dir_all(entry.path()));
    }
}

/// What Postgres is started with: reached by its socket only, and as durable as Postgres is by itself.
pub(super) fn settings(place: &DataDir, socket_dir: &Path) -> Vec<(String, String)> {
    let socket_dir = socket_dir.display();
    [
        ("listen_addresses", String::new()),
        ("port", "5432".into()),
        // A list, so a comma in the path needs the quotes.
        ("unix_socket_directories", format!("\"{socket_dir}\"")),
        ("unix_socket_permissions", "0700".into()),
        ("cluster_name", place.cluster_name()),
        ("max_connections", "100".into()),
        ("shared_buffers", "256MB".into()),
        // Few and even checkpoints: each is followed by a burst of full pages in the write-ahead log.
        ("max_wal_size", "2GB".into()),
        ("checkpoint_timeout", "15min".into()),
        ("checkpoint_completion_target", "0.9".into()),
        ("fsync", "on".into()),
        ("full_page_writes", "on".into()),
        ("synchronous_commit", "on".into()),
        ("timezone", "UTC".into()),
        ("log_timezone", "UTC".into()),
        ("logging_collector", "off".into()),
        ("log_destination", "stderr".into()),
        ("log_line_prefix", "%m [%p] ".into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// The best compression of the write-ahead log that these binaries were built with.
pub(super) async fn wal_compression(place: &DataDir, binaries: &Binaries) -> &'static str {
    let mut command = place.account.command(&binaries.folder.join("postgres"));
    command.arg("-D").arg(&place.cluster).args([
        "-c",
        "wal_compression=lz4",
        "-C",
        "wal_compression",
    ]);
    let status =
        command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).status().await;
    if status.is_ok_and(|status| status.success()) { "lz4" } else { "pglz" }
}
