//! One running Postgres: the child that we started, or one that we took over.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::POLL;
use super::process::{postmaster_has_ended, send};

/// How a Postgres is asked to end, and how long it may take: a fast shutdown writes a checkpoint, an immediate one nothing.
const STOPS: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(20)),
    (Signal::SIGQUIT, Duration::from_secs(6)),
    (Signal::SIGKILL, Duration::from_secs(5)),
];

/// The first process of a Postgres. Dropped without `stop`, it is asked to end but not waited for.
#[derive(Debug)]
pub(super) struct Postmaster {
    pid: i32,
    cluster: PathBuf,
    /// Absent when another program started it.
    child: Option<Child>,
    gone: bool,
    /// How long the log was when it began.
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
        Ok(Self { pid, cluster, child: Some(child), gone: false, log_start })
    }

    pub(super) fn take_over(pid: i32, cluster: PathBuf, log_start: u64) -> Self {
        Self { pid, cluster, child: None, gone: false, log_start }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn was_taken_over(&self) -> bool {
        self.child.is_none()
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.gone = self.gone
            || match &mut self.child {
                Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
                None => postmaster_has_ended(self.pid, &self.cluster),
            };
        self.gone
    }

    /// Ends it, by harsher means as time goes by.
    pub(super) async fn stop(&mut self) {
        for (signal, wait_max) in STOPS {
            if self.has_ended() {
                return;
            }
            send(self.pid, signal);
            let began = Instant::now();
            while began.elapsed() < wait_max {
                if self.has_ended() {
                    return;
                }
                sleep(POLL).await;
            }
            warn!(
                "the private Postgres {} did not end within {} s of {signal}",
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
