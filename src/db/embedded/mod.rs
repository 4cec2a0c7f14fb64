//! A private Postgres, for when no server is given.
//!
//! `Embedded::start` takes the lock of the cluster and is then in one of two positions:
//!
//! | position | what happens                                                             | at the end      |
//! |----------|--------------------------------------------------------------------------|-----------------|
//! | owner    | makes the cluster, or takes over one that still runs, or starts it       | stops it        |
//! | joined   | waits until the owner's Postgres accepts; becomes owner if the owner dies first | leaves it alone |
//!
//! Bounds: `START_WAIT_MAX` (recovery after a crash reads up to `max_wal_size` of log), `JOIN_WAIT_MAX`, and in
//! `postmaster` the three steps of a stop.
//!
//! Whatever the last program left behind is dealt with: a cluster half made, a Postgres that still runs, a Postgres that
//! was killed and whose sessions linger, a process id that now belongs to somebody else.
//! A dropped `Embedded` (or a dropped `start`) asks its Postgres to stop but does not wait for it.

mod binaries;
mod cluster;
mod connect;
mod data_dir;
mod environment;
mod log;
mod os_user;
mod owner;
mod pidfile;
mod postmaster;
mod process;
mod socket;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sqlx::postgres::PgConnectOptions;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

use connect::Attempt;
use data_dir::DataDir;
use owner::Owner;
use pidfile::PidFile;

pub use binaries::{Binaries, installed};

/// How often the state of a starting Postgres is looked at: a part of every start.
const POLL: Duration = Duration::from_millis(10);

/// Longest a program waits for the Postgres of another one.
const JOIN_WAIT_MAX: Duration = Duration::from_mins(1);

/// After this long, the log says what the start waits for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the private Postgres lives and which binaries run it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Embedded database")]
pub struct EmbeddedArgs {
    /// Folder for the private Postgres that runs when no `DATABASE_URL` is given
    #[arg(
        long,
        env = "REVWALLET_DATA_DIR",
        value_name = "DIR",
        default_value = ".revwallet",
        global = true
    )]
    pub data_dir: PathBuf,
    /// Folder that holds `initdb` and `postgres`, when they are not to be searched for
    #[arg(long, env = "REVWALLET_POSTGRES_BIN", value_name = "DIR", global = true)]
    pub postgres_bin: Option<PathBuf>,
}

/// A private Postgres that accepts connections.
#[derive(Debug)]
pub struct Embedded {
    socket_dir: PathBuf,
    version: String,
    /// Absent when another program owns the cluster.
    owner: Option<Owner>,
}

impl Embedded {
    /// Makes a private Postgres accept connections: creates, takes over, starts or joins it.
    pub async fn start(args: &EmbeddedArgs) -> anyhow::Result<Self> {
        Self::start_with(args, Vec::new()).await
    }

    /// The same, with Postgres settings on top: a test run turns `fsync` off.
    pub async fn start_with(
        args: &EmbeddedArgs,
        settings: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let place = DataDir::find(&args.data_dir).await?;
        let lock_file = open_lock(&place)?;
        let began = Instant::now();
        let mut told = false;
        loop {
            if lock(&lock_file, &place)? {
                let owner = Owner::new(place, lock_file, args.postgres_bin.clone(), settings)?;
                let version = owner.start().await?;
                return Ok(Self {
                    socket_dir: owner.socket_dir().to_owned(),
                    version,
                    owner: Some(owner),
                });
            }
            let reason = match join(&place).await? {
                Ok(joined) => return Ok(joined),
                Err(reason) => reason,
            };
            if JOIN_WAIT_MAX < began.elapsed() {
                bail!(
                    "another program owns the private Postgres in {} but it did not accept connections within {} s ({reason}): see {}",
                    place.home.display(),
                    JOIN_WAIT_MAX.as_secs(),
                    place.log().path().display(),
                );
            }
            if !told && PATIENCE < began.elapsed() {
                told = true;
                info!(
                    "waiting for the private Postgres of another program in {}",
                    place.home.display()
                );
            }
            sleep(POLL).await;
        }
    }

    /// How to connect to the program's database.
    pub fn connect_options(&self) -> PgConnectOptions {
        connect::options(&self.socket_dir, self.database())
    }

    /// The folder of the Unix socket, which is what `psql -h` wants.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The superuser of the cluster.
    pub fn user(&self) -> &str {
        connect::USER
    }

    /// The program's database.
    pub fn database(&self) -> &str {
        connect::DATABASE
    }

    /// The version of the server, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether another program started this Postgres and will stop it.
    pub fn joined(&self) -> bool {
        self.owner.is_none()
    }

    /// Starts Postgres again whenever it dies, until `stop` is cancelled or the cluster is stopped.
    pub async fn supervise(&self, stop: CancellationToken) {
        match &self.owner {
            Some(owner) => owner.supervise(stop).await,
            None => stop.cancelled().await,
        }
    }

    /// How often Postgres died and was started again by this program.
    pub fn restarts(&self) -> u64 {
        self.owner.as_ref().map_or(0, Owner::restarts)
    }

    /// Stops Postgres and waits for the end of its last process; does nothing when it was joined.
    pub async fn stop(&self) {
        if let Some(owner) = &self.owner {
            owner.stop().await;
        }
    }
}

/// One attempt to connect to the Postgres of another program; the inner error says why it is too early.
async fn join(place: &DataDir) -> anyhow::Result<Result<Embedded, String>> {
    let Some(running) = PidFile::read(&place.cluster)? else {
        return Ok(Err("it has not been started".into()));
    };
    let Some(socket_dir) = running.socket_dir.filter(|_| running.ready) else {
        return Ok(Err("it is starting".into()));
    };
    Ok(match connect::attempt(&socket_dir).await? {
        Attempt::Accepted { version } => Ok(Embedded { socket_dir, version, owner: None }),
        Attempt::DatabaseMissing => Err("its database is not there".into()),
        Attempt::TooEarly(reason) => Err(reason),
    })
}

fn open_lock(place: &DataDir) -> anyhow::Result<File> {
    let path = place.home.join("owner.lock");
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|error| {
        anyhow!(
            "the data directory cannot be written ({}: {error}): make it writable, or choose another with --data-dir or REVWALLET_DATA_DIR",
            path.display()
        )
    })
}

/// Whether we own the cluster now. The kernel gives the lock back when the program ends, however it ends.
fn lock(file: &File, place: &DataDir) -> anyhow::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| {
            format!(
                "the filesystem of {} has no file locks, choose another folder with --data-dir",
                place.home.display()
            )
        }),
    }
}
