//! The supervisor of the private Postgres. It starts Postgres, even if an earlier process left a Postgres or files
//! behind, restarts Postgres if it ends, and stops it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::connect::{self, ConnectOutcome};
use super::data_dir::DataDir;
use super::log::Log;
use super::pidfile::{self, PidFile};
use super::postmaster::Postmaster;
use super::process::PidHolder;
use super::{LOG_AFTER, POLL_INTERVAL, binaries, cluster, process, socket};

/// Longest time that a start may take. Recovery after a crash reads up to `max_wal_size` of the write-ahead log,
/// possibly from a slow disk.
const START_WAIT_MAX: Duration = Duration::from_mins(5);

/// Longest time for which a start is retried while leftovers of an earlier Postgres, such as shared memory, block it.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Pause before a start is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Interval at which the supervisor checks whether Postgres is still running.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Pause after the first restart of Postgres. The pause doubles with each further restart.
const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// Longest pause after a restart of Postgres.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Uptime after which Postgres counts as healthy. The pause after the next restart is then `BACKOFF_MIN` again.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) struct Supervisor {
    data_dir: DataDir,
    log: Log,
    socket_dir: PathBuf,
    postgres_bin: Option<PathBuf>,
    settings: Vec<(String, String)>,
    postmaster: Mutex<Option<Postmaster>>,
    stopping: CancellationToken,
    /// Number of restarts of Postgres after it ended unexpectedly.
    restarts: AtomicU64,
    /// Lock on the cluster, held while this process owns the cluster.
    lock: File,
}

impl Supervisor {
    pub(super) fn new(
        data_dir: DataDir,
        lock: File,
        postgres_bin: Option<PathBuf>,
        settings: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let log = data_dir.log();
        // A Postgres that is still running keeps the socket that its former owner chose.
        let pid_file = PidFile::read(&data_dir.cluster)?;
        let running = pid_file.filter(|pid_file| {
            process::holder_of(pid_file.pid, &data_dir.cluster) == PidHolder::Postmaster
        });
        let socket_dir = match running.and_then(|running| running.socket_dir) {
            Some(folder) => folder,
            None => socket::choose(&data_dir.hash(), &data_dir.os_user)?,
        };
        Ok(Self {
            data_dir,
            log,
            socket_dir,
            postgres_bin,
            settings,
            postmaster: Mutex::new(None),
            stopping: CancellationToken::new(),
            restarts: AtomicU64::new(0),
            lock,
        })
    }

    pub(super) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Number of restarts of Postgres after it ended unexpectedly.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Starts Postgres and returns its version once it accepts connections.
    pub(super) async fn start(&self) -> anyhow::Result<String> {
        let started = self.bring_up(&mut *self.postmaster.lock().await).await;
        if started.is_err() {
            self.stop().await;
        }
        started
    }

    /// Restarts Postgres whenever it ends, until `stop` is canceled or [`Self::stop`] is called.
    pub(super) async fn supervise(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.stopping.cancelled() => {}
            () = self.restart_on_exit() => {}
        }
    }

    /// Stops Postgres, waits until its last process has ended, and releases the cluster.
    pub(super) async fn stop(&self) {
        let is_first = !self.stopping.is_cancelled();
        self.stopping.cancel();
        let mut slot = self.postmaster.lock().await;
        if !is_first {
            // An earlier call has released the cluster, which may belong to another process by now.
            return;
        }
        if let Some(mut postmaster) = slot.take() {
            postmaster.stop().await;
        }
        // Removes the leftovers of a Postgres that was killed.
        if let Err(reason) =
            pidfile::running_postmaster(&self.data_dir.cluster, &self.data_dir.cluster_name()).await
        {
            warn!(
                "the private Postgres has ended, but its leftovers could not be removed; the next start tries again: {reason:#}"
            );
        }
        // The socket folder should be empty now. If it cannot be removed, it does no harm.
        drop(std::fs::remove_dir(&self.socket_dir));
        drop(self.lock.unlock());
    }

    async fn restart_on_exit(&self) {
        let mut backoff = BACKOFF_MIN;
        let mut since = Instant::now();
        loop {
            sleep(CHECK_INTERVAL).await;
            let mut slot = self.postmaster.lock().await;
            if slot.as_mut().is_some_and(|postmaster| !postmaster.has_ended()) {
                continue;
            }
            *slot = None;
            warn!(
                "the private Postgres ended unexpectedly; restarting it (its log: {})",
                self.log.path().display()
            );
            if HEALTHY_AFTER < since.elapsed() {
                backoff = BACKOFF_MIN;
            }
            match self.bring_up(&mut slot).await {
                Ok(_) => {
                    self.restarts.fetch_add(1, Ordering::Relaxed);
                    info!("the private Postgres accepts connections again");
                }
                Err(reason) => {
                    error!("the private Postgres could not be restarted; retrying: {reason:#}");
                }
            }
            drop(slot);
            since = Instant::now();
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Takes over a Postgres that is still running, or starts a new Postgres, and waits until it accepts connections.
    async fn bring_up(&self, slot: &mut Option<Postmaster>) -> anyhow::Result<String> {
        let started = Instant::now();
        let (mut waiting_since, mut is_logged) = (None, false);
        loop {
            if let Some(ended) = slot.take_if(Postmaster::has_ended) {
                self.check_exit(&ended, started).await?;
            }
            let pid = match slot {
                Some(postmaster) => postmaster.pid(),
                None => slot.insert(self.take_over_or_spawn().await?).pid(),
            };
            let reason = match self.try_connect(pid).await? {
                Ok(version) => return Ok(version),
                Err(reason) => reason,
            };
            if START_WAIT_MAX < started.elapsed() {
                let wait = START_WAIT_MAX.as_secs();
                bail!(
                    "the private Postgres did not accept connections within {wait} s ({reason}): see {}",
                    self.log.path().display()
                );
            }
            // The wait is measured from here: the creation of a cluster, which takes longer, has its own log message.
            let waiting_since = *waiting_since.get_or_insert_with(Instant::now);
            if !is_logged && LOG_AFTER < waiting_since.elapsed() {
                is_logged = true;
                info!(
                    "waiting until the private Postgres accepts connections ({reason}); its log: {}",
                    self.log.path().display()
                );
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Tries once to connect. If Postgres is not ready, the inner `Result` is an error with the reason.
    async fn try_connect(&self, pid: i32) -> anyhow::Result<Result<String, String>> {
        let pid_file = PidFile::read(&self.data_dir.cluster)?;
        if !pid_file.is_some_and(|pid_file| pid_file.pid == pid && pid_file.is_ready) {
            return Ok(Err("it is starting".into()));
        }
        Ok(match connect::try_connect(&self.socket_dir).await? {
            ConnectOutcome::Accepted { version } => Ok(version),
            ConnectOutcome::DatabaseMissing => {
                connect::create_database(&self.socket_dir).await?;
                Err("its database was just created".into())
            }
            ConnectOutcome::NotReady(reason) => Err(reason),
        })
    }

    /// Handles a Postgres that ended during the start: pauses if a retry can succeed, and fails otherwise.
    async fn check_exit(&self, ended: &Postmaster, started: Instant) -> anyhow::Result<()> {
        let error = self.log.last_error_since(ended.log_start);
        if ended.is_taken_over() || (started.elapsed() < RETRY_MAX && is_transient(&error)) {
            sleep(RETRY_PAUSE).await;
            return Ok(());
        }
        bail!("the private Postgres did not start ({error}): see {}", self.log.path().display())
    }

    async fn take_over_or_spawn(&self) -> anyhow::Result<Postmaster> {
        let data_dir = &self.data_dir;
        if let Some(running) =
            pidfile::running_postmaster(&data_dir.cluster, &data_dir.cluster_name()).await?
        {
            info!(
                "taking over the private Postgres that is still running in {}",
                data_dir.cluster.display()
            );
            return Ok(Postmaster::take_over(
                running.pid,
                data_dir.cluster.clone(),
                self.log.size(),
            ));
        }
        let major_version = cluster::major_version(&data_dir.cluster)?;
        let binaries =
            binaries::find(self.postgres_bin.as_deref(), major_version, &data_dir.os_user).await?;
        if major_version.is_none() {
            let sync = !self.settings.iter().any(|(name, value)| name == "fsync" && value == "off");
            cluster::create(data_dir, &binaries, sync).await?;
        }
        data_dir.link()?;
        socket::prepare(&self.socket_dir, &data_dir.os_user)?;
        let compression = cluster::wal_compression(data_dir, &binaries).await;
        let mut command = data_dir.os_user.command(&binaries.folder.join("postgres"));
        // The path of the cluster comes first, because a process that takes over this Postgres recognizes it by this
        // path.
        command
            .arg("-D")
            .arg(&data_dir.cluster)
            .arg("-c")
            .arg(format!("wal_compression={compression}"));
        for (name, value) in
            cluster::settings(data_dir, &self.socket_dir).iter().chain(&self.settings)
        {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        Postmaster::spawn(command, data_dir.cluster.clone(), self.log.open()?)
    }
}

/// Whether the cause of a Postgres error is temporary, so that another attempt to start Postgres can succeed.
fn is_transient(error: &str) -> bool {
    let transient = [
        "pre-existing shared memory block",
        "lock file",
        "is being used by",
        "could not create any Unix-domain sockets",
    ];
    transient.iter().any(|reason| error.contains(reason))
}
