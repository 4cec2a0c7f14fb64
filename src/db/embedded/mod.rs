//! The private Postgres that runs if no server is configured.
//!
//! `Embedded::start` tries to lock the cluster, which gives the process one of two roles:
//!
//! | role   | at start                                                                                      | at the end    |
//! |--------|-----------------------------------------------------------------------------------------------|---------------|
//! | owner  | creates the cluster, takes over a Postgres that is still running, or starts one               | stops it      |
//! | joined | waits until the owner's Postgres accepts connections; becomes owner if the owner ends earlier | leaves it running |
//!
//! Every wait has a limit: `START_WAIT_MAX` for a start, `JOIN_WAIT_MAX` for the Postgres of another process, and a
//! limit for each of the three signals that stop Postgres (in `postmaster`).
//!
//! A start copes with everything that an earlier process may have left: an incomplete cluster, a Postgres that is still
//! running, sessions of a Postgres that was killed, a pid file whose process id now belongs to another process.
//! Dropping `Embedded` (or the future of `start`) signals Postgres to stop but does not wait for its end.

mod binaries;
mod cluster;
mod connect;
mod data_dir;
mod environment;
mod log;
mod os_user;
mod pidfile;
mod postmaster;
mod process;
mod socket;
mod supervisor;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sqlx::postgres::PgConnectOptions;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

use connect::ConnectOutcome;
use data_dir::DataDir;
use pidfile::PidFile;
use supervisor::Supervisor;

pub use binaries::{Binaries, installed};

/// Interval at which the program checks whether a starting Postgres accepts connections, and whether a stopping
/// Postgres has ended. The interval is short, because it can delay every start.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Longest time to wait until the Postgres of another process accepts connections.
const JOIN_WAIT_MAX: Duration = Duration::from_mins(1);

/// Time after which a start logs that it is still waiting for Postgres.
const LOG_AFTER: Duration = Duration::from_secs(2);

/// Data directory and binaries of the private Postgres.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Embedded database")]
pub struct EmbeddedArgs {
    /// Folder for the private Postgres that runs if `DATABASE_URL` is not set
    #[arg(
        long,
        env = "REVWALLET_DATA_DIR",
        value_name = "DIR",
        default_value = ".revwallet",
        global = true
    )]
    pub data_dir: PathBuf,
    /// Folder that contains `initdb` and `postgres` [default: searched for on this machine]
    #[arg(long, env = "REVWALLET_POSTGRES_BIN", value_name = "DIR", global = true)]
    pub postgres_bin: Option<PathBuf>,
}

/// A private Postgres that accepts connections.
#[derive(Debug)]
pub struct Embedded {
    socket_dir: PathBuf,
    version: String,
    /// Supervisor of Postgres; `None` if another process owns the cluster.
    owner: Option<Supervisor>,
}

impl Embedded {
    /// Creates, takes over, starts or joins the private Postgres; returns when it accepts connections.
    pub async fn start(args: &EmbeddedArgs) -> anyhow::Result<Self> {
        Self::start_with(args, Vec::new()).await
    }

    /// Like [`Self::start`], with additional Postgres settings, such as `fsync = off` in tests.
    pub async fn start_with(
        args: &EmbeddedArgs,
        settings: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let data_dir = DataDir::find(&args.data_dir).await?;
        let lock_file = open_lock(&data_dir)?;
        let started = Instant::now();
        let mut is_logged = false;
        loop {
            if lock(&lock_file, &data_dir)? {
                let owner =
                    Supervisor::new(data_dir, lock_file, args.postgres_bin.clone(), settings)?;
                let version = owner.start().await?;
                return Ok(Self {
                    socket_dir: owner.socket_dir().to_owned(),
                    version,
                    owner: Some(owner),
                });
            }
            let reason = match join(&data_dir).await? {
                Ok(joined) => return Ok(joined),
                Err(reason) => reason,
            };
            if JOIN_WAIT_MAX < started.elapsed() {
                bail!(
                    "another process owns the private Postgres in {} but it did not accept connections within {} s ({reason}): see {}",
                    data_dir.home.display(),
                    JOIN_WAIT_MAX.as_secs(),
                    data_dir.log().path().display(),
                );
            }
            if !is_logged && LOG_AFTER < started.elapsed() {
                is_logged = true;
                info!(
                    "waiting until the private Postgres of another process accepts connections; its data directory is {}",
                    data_dir.home.display()
                );
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Like `start`, but fails without creating anything if there is no cluster yet.
    pub async fn start_existing(args: &EmbeddedArgs) -> anyhow::Result<Self> {
        if !DataDir::has_cluster(&args.data_dir)? {
            bail!(
                "there is no database in the data directory {}: start the server or run `revwallet migrate` first, choose another folder with --data-dir, or set DATABASE_URL",
                std::path::absolute(&args.data_dir)?.display()
            );
        }
        Self::start(args).await
    }

    /// Returns the options for connections to the program's database.
    pub fn connect_options(&self) -> PgConnectOptions {
        connect::options(&self.socket_dir, self.database())
    }

    /// Returns the folder of the Unix socket, for `psql -h`.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Returns the name of the cluster's superuser. The program connects under this name.
    pub fn user(&self) -> &str {
        connect::USER
    }

    /// Returns the name of the program's database.
    pub fn database(&self) -> &str {
        connect::DATABASE
    }

    /// Returns the version of Postgres, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether another process owns this Postgres. Only the owner stops Postgres.
    pub fn is_joined(&self) -> bool {
        self.owner.is_none()
    }

    /// Restarts Postgres whenever it ends, until `stop` is canceled or [`Self::stop`] is called.
    pub async fn supervise(&self, stop: CancellationToken) {
        match &self.owner {
            Some(owner) => owner.supervise(stop).await,
            None => stop.cancelled().await,
        }
    }

    /// Returns the number of times that this process restarted Postgres after it ended unexpectedly.
    pub fn restarts(&self) -> u64 {
        self.owner.as_ref().map_or(0, Supervisor::restarts)
    }

    /// Stops Postgres and waits until its last process has ended. Does nothing if another process owns this Postgres.
    pub async fn stop(&self) {
        if let Some(owner) = &self.owner {
            owner.stop().await;
        }
    }
}

/// Tries once to connect to the Postgres of another process. If that Postgres is not ready, the inner `Result` is an
/// error with the reason.
async fn join(data_dir: &DataDir) -> anyhow::Result<Result<Embedded, String>> {
    let Some(running) = PidFile::read(&data_dir.cluster)? else {
        return Ok(Err("it has not been started".into()));
    };
    let Some(socket_dir) = running.socket_dir.filter(|_| running.is_ready) else {
        return Ok(Err("it is starting".into()));
    };
    Ok(match connect::try_connect(&socket_dir).await? {
        ConnectOutcome::Accepted { version } => Ok(Embedded { socket_dir, version, owner: None }),
        ConnectOutcome::DatabaseMissing => Err("its database does not exist yet".into()),
        ConnectOutcome::NotReady(reason) => Err(reason),
    })
}

fn open_lock(data_dir: &DataDir) -> anyhow::Result<File> {
    let path = data_dir.home.join("owner.lock");
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|error| {
        anyhow!(
            "the data directory cannot be written ({}: {error}): make it writable, or choose another with --data-dir or REVWALLET_DATA_DIR",
            path.display()
        )
    })
}

/// Tries to lock the cluster and returns whether this process owns it now. The kernel releases the lock when the
/// process ends.
fn lock(file: &File, data_dir: &DataDir) -> anyhow::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| {
            format!(
                "the filesystem of {} has no file locks, choose another folder with --data-dir",
                data_dir.home.display()
            )
        }),
    }
}
