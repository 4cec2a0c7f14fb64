//! The owner of a cluster: starts Postgres whatever state it was left in, keeps it running, stops it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::connect::{self, Attempt};
use super::data_dir::DataDir;
use super::log::Log;
use super::pidfile::{self, PidFile};
use super::postmaster::Postmaster;
use super::{PATIENCE, POLL, binaries, cluster, process, socket};

/// Longest a start may take. Recovery after a crash reads up to `max_wal_size` of log, on a slow disk too.
const START_WAIT_MAX: Duration = Duration::from_mins(5);

/// How long a start is tried again when something of the last Postgres is in its way.
const RETRY_MAX: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How often the supervisor looks whether Postgres lives.
const WATCH: Duration = Duration::from_millis(100);

/// The pause before Postgres is started yet again: doubled each time, and forgotten after it lived for a while.
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
const HEALTHY: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) struct Owner {
    place: DataDir,
    log: Log,
    socket_dir: PathBuf,
    postgres_bin: Option<PathBuf>,
    settings: Vec<(String, String)>,
    postmaster: Mutex<Option<Postmaster>>,
    stopping: CancellationToken,
    /// How often Postgres died and was started again.
    restarts: AtomicU64,
    /// Held for as long as we are the owner.
    lock: File,
}

impl Owner {
    pub(super) fn new(
        place: DataDir,
        lock: File,
        postgres_bin: Option<PathBuf>,
        settings: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let log = place.log();
        // One that still runs has its socket where the program that started it wanted it.
        let left = PidFile::read(&place.cluster)?;
        let running = left.filter(|left| {
            process::holder(left.pid, &place.cluster) == process::Holder::Postmaster
        });
        let socket_dir = match running.and_then(|running| running.socket_dir) {
            Some(folder) => folder,
            None => socket::choose(&place.hash(), &place.account)?,
        };
        Ok(Self {
            place,
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

    /// How often Postgres died and was started again.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Makes Postgres accept connections; returns its version.
    pub(super) async fn start(&self) -> anyhow::Result<String> {
        let started = self.bring_up(&mut *self.postmaster.lock().await).await;
        if started.is_err() {
            self.stop().await;
        }
        started
    }

    /// Starts Postgres again whenever it dies, until told to stop.
    pub(super) async fn supervise(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.stopping.cancelled() => {}
            () = self.keep_alive() => {}
        }
    }

    /// Ends Postgres, waits for its last process, and gives up the cluster.
    pub(super) async fn stop(&self) {
        let first = !self.stopping.is_cancelled();
        self.stopping.cancel();
        let mut slot = self.postmaster.lock().await;
        if !first {
            // The cluster may be somebody else's by now.
            return;
        }
        if let Some(mut postmaster) = slot.take() {
            postmaster.stop().await;
        }
        // Clears away what a Postgres that was killed left behind.
        if let Err(reason) = pidfile::running(&self.place.cluster, &self.place.cluster_name()).await
        {
            warn!("the private Postgres has ended but not everything of it is gone: {reason:#}");
        }
        // The folder of the socket is empty now; if it is not, it is of no harm.
        drop(std::fs::remove_dir(&self.socket_dir));
        drop(self.lock.unlock());
    }

    async fn keep_alive(&self) {
        let mut back_off = BACK_OFF_MIN;
        let mut since = Instant::now();
        loop {
            sleep(WATCH).await;
            let mut slot = self.postmaster.lock().await;
            if slot.as_mut().is_some_and(|postmaster| !postmaster.has_ended()) {
                continue;
            }
            *slot = None;
            warn!(
                "the private Postgres has died, starting it again; its log is {}",
                self.log.path().display()
            );
            if HEALTHY < since.elapsed() {
                back_off = BACK_OFF_MIN;
            }
            match self.bring_up(&mut slot).await {
                Ok(_) => {
                    self.restarts.fetch_add(1, Ordering::Relaxed);
                    info!("the private Postgres accepts connections again");
                }
                Err(reason) => {
                    error!("the private Postgres does not start, trying again: {reason:#}");
                }
            }
            drop(slot);
            since = Instant::now();
            sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    /// Takes over the Postgres that runs or starts one, and waits until it accepts connections.
    async fn bring_up(&self, slot: &mut Option<Postmaster>) -> anyhow::Result<String> {
        let began = Instant::now();
        let (mut waits_since, mut told) = (None, false);
        loop {
            if let Some(ended) = slot.take_if(Postmaster::has_ended) {
                self.judge_end(&ended, began).await?;
            }
            let pid = match slot {
                Some(postmaster) => postmaster.pid(),
                None => slot.insert(self.take_over_or_spawn().await?).pid(),
            };
            let waits_for = match self.attempt(pid).await? {
                Ok(version) => return Ok(version),
                Err(reason) => reason,
            };
            if START_WAIT_MAX < began.elapsed() {
                let wait = START_WAIT_MAX.as_secs();
                bail!(
                    "the private Postgres did not accept connections within {wait} s ({waits_for}): see {}",
                    self.log.path().display()
                );
            }
            // Counted from here: a new cluster has taken its time already, and that was said.
            let waits_since = *waits_since.get_or_insert_with(Instant::now);
            if !told && PATIENCE < waits_since.elapsed() {
                told = true;
                info!(
                    "waiting for the private Postgres ({waits_for}); its log is {}",
                    self.log.path().display()
                );
            }
            sleep(POLL).await;
        }
    }

    /// One attempt to use the database; the inner error says why it is too early.
    async fn attempt(&self, pid: i32) -> anyhow::Result<Result<String, String>> {
        let said = PidFile::read(&self.place.cluster)?;
        if !said.is_some_and(|said| said.pid == pid && said.ready) {
            return Ok(Err("it is starting".into()));
        }
        Ok(match connect::attempt(&self.socket_dir).await? {
            Attempt::Accepted { version } => Ok(version),
            Attempt::DatabaseMissing => {
                connect::create_database(&self.socket_dir).await?;
                Err("its database was just created".into())
            }
            Attempt::TooEarly(reason) => Err(reason),
        })
    }

    /// Returns when the start is worth another try after this one ended.
    async fn judge_end(&self, ended: &Postmaster, began: Instant) -> anyhow::Result<()> {
        let complaint = self.log.complaint_since(ended.log_start);
        if ended.was_taken_over() || (began.elapsed() < RETRY_MAX && passes(&complaint)) {
            sleep(RETRY_PAUSE).await;
            return Ok(());
        }
        bail!("the private Postgres did not start ({complaint}): see {}", self.log.path().display())
    }

    async fn take_over_or_spawn(&self) -> anyhow::Result<Postmaster> {
        let place = &self.place;
        if let Some(running) = pidfile::running(&place.cluster, &place.cluster_name()).await? {
            info!(
                "taking over the private Postgres that still runs in {}",
                place.cluster.display()
            );
            return Ok(Postmaster::take_over(running.pid, place.cluster.clone(), self.log.size()));
        }
        let made_by = cluster::made_by(&place.cluster)?;
        let binaries =
            binaries::find(self.postgres_bin.as_deref(), made_by, &place.account).await?;
        if made_by.is_none() {
            let sync = !self.settings.iter().any(|(name, value)| name == "fsync" && value == "off");
            cluster::create(place, &binaries, sync).await?;
        }
        place.link()?;
        socket::prepare(&self.socket_dir, &place.account)?;
        let compression = cluster::wal_compression(place, &binaries).await;
        let mut command = place.account.command(&binaries.folder.join("postgres"));
        // First the cluster: whoever takes this process over knows it by that.
        command
            .arg("-D")
            .arg(&place.cluster)
            .arg("-c")
            .arg(format!("wal_compression={compression}"));
        for (name, value) in cluster::settings(place, &self.socket_dir).iter().chain(&self.settings)
        {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        Postmaster::spawn(command, place.cluster.clone(), self.log.open()?)
    }
}

/// Whether Postgres gave up because of something that goes away by itself.
fn passes(complaint: &str) -> bool {
    let passing = [
        "pre-existing shared memory block",
        "lock file",
        "is being used by",
        "could not create any Unix-domain sockets",
    ];
    passing.iter().any(|reason| complaint.contains(reason))
}
