//! Creation of a Postgres cluster, and the settings of its server.

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

/// Prefix of the temporary name of a cluster that is being created; a process id and a number follow.
const UNFINISHED: &str = "postgres.new.";

/// Counter that makes the temporary names of this process distinct.
static ATTEMPT: AtomicU32 = AtomicU32::new(0);

/// Returns the major version of PostgreSQL that created a cluster; `None` if there is no cluster yet.
pub(super) fn major_version(cluster: &Path) -> anyhow::Result<Option<u32>> {
    let path = cluster.join("PG_VERSION");
    if !path.exists() {
        return Ok(None);
    }
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(text.trim().parse().with_context(|| format!("{} is malformed", path.display()))?))
}

/// Creates the cluster under a temporary name, and renames the folder when the cluster is complete and on disk.
pub(super) async fn create(
    data_dir: &DataDir,
    binaries: &Binaries,
    sync: bool,
) -> anyhow::Result<()> {
    info!(
        "creating a private Postgres {}.{} in {}",
        binaries.major,
        binaries.minor,
        data_dir.cluster.display()
    );
    remove_unfinished(&data_dir.home);
    let number = ATTEMPT.fetch_add(1, Ordering::Relaxed);
    let unfinished = data_dir.home.join(format!("{UNFINISHED}{}.{number}", std::process::id()));
    let to_error = |cause: std::io::Error| {
        anyhow!(
            "the data directory cannot be written ({}: {cause}): make it writable, or choose another with --data-dir or REVWALLET_DATA_DIR",
            unfinished.display()
        )
    };
    DirBuilder::new().mode(0o700).create(&unfinished).map_err(to_error)?;
    data_dir.os_user.take_ownership(&unfinished)?;
    if let Err(error) = initdb(data_dir, binaries, &unfinished, sync).await {
        remove_unfinished(&data_dir.home);
        return Err(error);
    }
    fs::rename(&unfinished, &data_dir.cluster).map_err(to_error)?;
    File::open(&data_dir.home).and_then(|home| home.sync_all()).map_err(to_error)
}

async fn initdb(
    data_dir: &DataDir,
    binaries: &Binaries,
    folder: &Path,
    sync: bool,
) -> anyhow::Result<()> {
    let mut command = data_dir.os_user.command(&binaries.folder.join("initdb"));
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
    // `initdb` writes to a pipe. If this program is killed, `initdb` also ends when it next writes a line.
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child =
        child.with_context(|| format!("cannot run {}/initdb", binaries.folder.display()))?;
    let group = ProcessGroup(child.id());
    let output = child.wait_with_output().await.context("cannot wait for initdb")?;
    group.disarm();
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().rfind(|line| line.contains("error:") || line.contains("FATAL:"));
    let reason = line.or_else(|| text.lines().last()).unwrap_or("no output").trim();
    bail!(
        "initdb could not create a cluster in {} ({reason}): choose another folder with --data-dir or another PostgreSQL with REVWALLET_POSTGRES_BIN",
        data_dir.home.display()
    )
}

/// A process group that is killed on drop.
struct ProcessGroup(Option<u32>);

impl ProcessGroup {
    /// Drops the guard without killing the group, because the process has ended.
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // The group may have ended in the meantime.
            killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

/// Removes the leftovers of interrupted attempts to create a cluster. Leftovers that cannot be removed are harmless,
/// because each attempt has its own name.
fn remove_unfinished(home: &Path) {
    let entries = fs::read_dir(home).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED))
    {
        drop(fs::remove_dir_all(entry.path()));
    }
}

/// Returns the settings of the private Postgres. It listens only on its Unix socket, and its commits are as durable as
/// with PostgreSQL's default settings.
pub(super) fn settings(data_dir: &DataDir, socket_dir: &Path) -> Vec<(String, String)> {
    let socket_dir = socket_dir.display();
    [
        ("listen_addresses", String::new()),
        ("port", "5432".into()),
        // The value is a list, so a comma in the path needs quotes.
        ("unix_socket_directories", format!("\"{socket_dir}\"")),
        ("unix_socket_permissions", "0700".into()),
        ("cluster_name", data_dir.cluster_name()),
        ("max_connections", "100".into()),
        ("shared_buffers", "256MB".into()),
        // Checkpoints are rare and spread over time, because each checkpoint causes a burst of full-page writes to the
        // write-ahead log.
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

/// Returns the best write-ahead log compression method that these binaries support.
pub(super) async fn wal_compression(data_dir: &DataDir, binaries: &Binaries) -> &'static str {
    let mut command = data_dir.os_user.command(&binaries.folder.join("postgres"));
    command.arg("-D").arg(&data_dir.cluster).args([
        "-c",
        "wal_compression=lz4",
        "-C",
        "wal_compression",
    ]);
    let status =
        command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).status().await;
    if status.is_ok_and(|status| status.success()) { "lz4" } else { "pglz" }
}
