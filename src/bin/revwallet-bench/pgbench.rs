//! The baseline: `pgbench` calls a stored procedure that deposits in the conventional way, by updating a balance
//! column.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use revwallet::db::embedded::{Embedded, installed};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use crate::load::latency::LatencyHistogram;
use crate::samples::LoadResult;
use crate::sql;

/// Database of the baseline, on the same Postgres server as the ledgers.
const DATABASE: &str = "baseline";

/// Runs `pgbench` on the baseline's database.
pub(crate) struct PgbenchBaseline {
    binary: PathBuf,
    socket_dir: PathBuf,
    user: String,
    scratch_dir: PathBuf,
}

impl PgbenchBaseline {
    /// Creates the database of the baseline, with the given number of accounts.
    pub(crate) async fn prepare(
        postgres: &Embedded,
        scratch_dir: &Path,
        accounts: u32,
    ) -> anyhow::Result<Self> {
        let mut binaries =
            installed().await?.into_iter().map(|binaries| binaries.folder.join("pgbench"));
        let binary = binaries.find(|binary| binary.exists()).context(
            "pgbench is missing; install it (Debian: apt-get install postgresql-contrib)",
        )?;
        let mut db = PgConnection::connect_with(&postgres.connect_options()).await?;
        sql::create_database(&mut db, DATABASE).await?;
        db.close().await?;
        let options = postgres.connect_options().database(DATABASE);
        let mut db = PgConnection::connect_with(&options).await?;
        sql::create_baseline(&mut db, i32::try_from(accounts)?).await?;
        db.close().await?;
        Ok(Self {
            binary,
            socket_dir: postgres.socket_dir().to_owned(),
            user: postgres.user().to_owned(),
            scratch_dir: scratch_dir.to_owned(),
        })
    }

    /// Runs `pgbench`. Its clients deposit into random accounts, chosen from the first `accounts` accounts.
    pub(crate) async fn run(
        &self,
        clients: usize,
        accounts: u32,
        duration: Duration,
    ) -> anyhow::Result<LoadResult> {
        let script = self.scratch_dir.join("deposit.pgbench");
        std::fs::write(&script, include_str!("deposit.pgbench"))?;
        let log_prefix = self.scratch_dir.join(format!("pgbench-{clients}-{accounts}"));
        let output = Command::new(&self.binary)
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2", "--log"])
            .arg(format!("--client={clients}"))
            .arg(format!("--time={}", duration.as_secs().max(1)))
            .arg(format!("--define=accounts={accounts}"))
            .arg(format!("--log-prefix={}", log_prefix.display()))
            .arg(format!("--file={}", script.display()))
            .args(["--host".as_ref(), self.socket_dir.as_os_str()])
            .args(["--username", &self.user, DATABASE])
            .output()
            .await
            .context("cannot run pgbench")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pgbench failed: {}", stderr.trim());
        let latencies = read_logs(&self.scratch_dir, &log_prefix)?;
        let rate = parse_rate(&String::from_utf8_lossy(&output.stdout));
        Ok(LoadResult { rate: rate.context("pgbench did not print its rate")?, latencies })
    }
}

/// Parses the number of transactions per second from the output of `pgbench`.
fn parse_rate(stdout: &str) -> Option<f64> {
    stdout.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
}

/// Reads and removes the log that each thread of `pgbench` wrote; the third column is the latency in microseconds.
fn read_logs(folder: &Path, prefix: &Path) -> anyhow::Result<LatencyHistogram> {
    let mut latencies = LatencyHistogram::default();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.to_string_lossy().starts_with(&format!("{}.", prefix.display())) {
            continue;
        }
        for line in std::fs::read_to_string(&path)?.lines() {
            let microseconds = line.split(' ').nth(2).and_then(|column| column.parse().ok());
            let microseconds = microseconds.context("malformed line in the log of pgbench")?;
            latencies.record(Duration::from_micros(microseconds));
        }
        std::fs::remove_file(path)?;
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_output() {
        let stdout = "latency average = 0.2 ms\ntps = 4646.25 (without initial connection time)\n";

        assert_eq!(parse_rate(stdout), Some(4646.25));
        assert_eq!(parse_rate("no rate"), None);
    }
}
