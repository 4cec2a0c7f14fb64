//! A running Postgres: a child of this process, or a Postgres that another process started and this process took over.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::POLL_INTERVAL;
use super::process::{postmaster_has_ended, send};

/// Signals that stop Postgres, each with the longest time to wait until Postgres has ended: a fast shutdown, which
/// writes a checkpoint, an immediate shutdown without a checkpoint, and a kill.
const STOP_SIGNALS: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(20)),
    (Signal::SIGQUIT, Duration::from_secs(6)),
    (Signal::SIGKILL, Duration::from_secs(5)),
];

/// The main process of a Postgres server. Dropping it signals Postgres to stop, but does not wait until Postgres has
/// ended.
#[derive(Debug)]
pub(super) struct Postmaster {
    pid: i32,
    cluster: PathBuf,
    /// Handle of the child process; `None` if another process started this Postgres.
    child: Option<Child>,
    has_ended: bool,
    /// Length of the log when this Postgres was started or taken over.
    pub log_start: u64,
}

impl Postmaster {
    pub(super) fn spawn(mut command: Command, cluster: PathBuf, log: File) -> anyhow::Result<Self> {
        let log_start = log.metadata().map_or(0, |metadata| metadata.len());
        command.stdout(log.try_clone().context("cannot open the log twice")?).stderr(log);
        let child = command.spawn().context("cannot run postgres")?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .context("postgres has no process id")?;
        Ok(Self { pid, cluster, child: Some(child), has_ended: false, log_start })
    }

    pub(super) fn take_over(pid: i32, cluster: PathBuf, log_start: u64) -> Self {
        Self { pid, cluster, child: None, has_ended: false, log_start }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn is_taken_over(&self) -> bool {
        self.child.is_none()
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.has_ended = self.has_ended
            || match &mut self.child {
                Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
                None => postmaster_has_ended(self.pid, &self.cluster),
            };
        self.has_ended
    }

    /// Stops Postgres. Sends the next stronger signal whenever Postgres does not end in time.
    pub(super) async fn stop(&mut self) {
        for (signal, wait_max) in STOP_SIGNALS {
            if self.has_ended() {
                return;
            }
            send(self.pid, signal);
            let sent = Instant::now();
            while sent.elapsed() < wait_max {
                if self.has_ended() {
                    return;
                }
                sleep(POLL_INTERVAL).await;
            }
            warn!(
                "the private Postgres (process {}) did not end within {} s of {signal}; sending a stronger signal, if there is one",
                self.pid,
                wait_max.as_secs()
            );
        }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if !self.has_ended() {
            send(self.pid, Signal::SIGINT);
        }
    }
}
