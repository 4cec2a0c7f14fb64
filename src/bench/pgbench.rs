//! The baseline: `pgbench` calling a stored procedure that deposits the usual way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use sqlx::{Connection, Executor, PgConnection};
use tokio::process::Command;

use super::histogram::Histogram;
use super::report::Run;
use crate::db::embedded::{Embedded, installed};

/// A database of its own in the same server.
pub(super) struct Baseline {
    program: PathBuf,
    socket_dir: PathBuf,
    user: String,
    folder: PathBuf,
}

impl Baseline {
    pub(super) async fn prepare(
        embedded: &Embedded,
        folder: &Path,
        accounts: u32,
    ) -> anyhow::Result<Self> {
        let program = installed()
            .await?
            .into_iter()
            .map(|binaries| binaries.folder.join("pgbench"))
            .find(|program| program.exists())
            .context(
                "pgbench is missing; install it (Debian: apt-get install postgresql-contrib)",
            )?;
        let mut connection = PgConnection::connect_with(&embedded.connect_options()).await?;
        connection.execute("create database baseline").await?;
        connection.close().await?;
        let options = embedded.connect_options().database("baseline");
        let mut connection = PgConnection::connect_with(&options).await?;
        connection.execute(include_str!("baseline.sql")).await?;
        sqlx::query("select prepare_baseline($1)")
            .bind(i32::try_from(accounts)?)
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(Self {
            program,
            socket_dir: embedded.socket_dir().to_owned(),
            user: embedded.user().to_owned(),
            folder: folder.to_owned(),
        })
    }

    pub(super) async fn run(
        &self,
        clients: usize,
        accounts: u32,
        time: Duration,
    ) -> anyhow::Result<Run> {
        let script = self.folder.join("deposit.pgbench");
        std::fs::write(&script, include_str!("deposit.pgbench"))?;
        let prefix = self.folder.join(format!("pgbench-{clients}-{accounts}"));
        let output = Command::new(&self.program)
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2", "--log"])
            .arg(format!("--client={clients}"))
            .arg(format!("--time={}", time.as_secs().max(1)))
            .arg(format!("--define=accounts={accounts}"))
            .arg(format!("--log-prefix={}", prefix.display()))
            .arg(format!("--file={}", script.display()))
            .args(["--host".as_ref(), self.socket_dir.as_os_str()])
            .args(["--username", &self.user, "baseline"])
            .output()
            .await
            .context("cannot run pgbench")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pgbench failed: {}", said.trim());
        let latencies = read_logs(&self.folder, &prefix)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = said
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        Ok(Run { rate: rate.context("pgbench prints its rate")?, latencies })
    }
}

/// Each thread of pgbench writes a file; the third column of a line is microseconds.
fn read_logs(folder: &Path, prefix: &Path) -> anyhow::Result<Histogram> {
    let mut latencies = Histogram::default();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.to_string_lossy().starts_with(&format!("{}.", prefix.display())) {
            continue;
        }
        for line in std::fs::read_to_string(&path)?.lines() {
            let microseconds = line.split(' ').nth(2).and_then(|column| column.parse().ok());
            latencies
                .record(Duration::from_micros(microseconds.context("a line of pgbench's log")?));
        }
        std::fs::remove_file(path)?;
    }
    Ok(latencies)
}
