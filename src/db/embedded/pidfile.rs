//! Reads `postmaster.pid`, the file in which a running Postgres publishes its state.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::process::{PidHolder, end_orphans, holder_of};

const NAME: &str = "postmaster.pid";

/// The lines of the pid file that the program uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub pid: i32,
    pub socket_dir: Option<PathBuf>,
    /// Whether Postgres accepts connections.
    pub is_ready: bool,
}

impl PidFile {
    /// Reads the pid file of a cluster; `None` if the file does not exist, or if it does not contain the process id
    /// yet.
    pub(super) fn read(cluster: &Path) -> anyhow::Result<Option<Self>> {
        let path = cluster.join(NAME);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim_end);
        let pid = lines.next()?.parse().ok()?;
        // The lines after the process id: cluster, start time, port, socket folder, address, shared memory and state.
        let socket_dir = lines.nth(3).filter(|line| !line.is_empty()).map(PathBuf::from);
        Some(Self { pid, socket_dir, is_ready: lines.nth(2) == Some("ready") })
    }
}

/// Returns the pid file of the postmaster (the main process of Postgres) that runs this cluster.
///
/// If no postmaster is running, removes the leftovers of a killed postmaster. If they remained, a new Postgres would
/// trust a pid file whose process id now belongs to another process, and would wait forever for sessions that are still
/// busy.
pub(super) async fn running_postmaster(
    cluster: &Path,
    cluster_name: &str,
) -> anyhow::Result<Option<PidFile>> {
    let Some(found) = PidFile::read(cluster)? else { return Ok(None) };
    match holder_of(found.pid, cluster) {
        PidHolder::Postmaster => return Ok(Some(found)),
        PidHolder::UnknownPostgres => return Ok(None),
        PidHolder::Other => {}
    }
    end_orphans(cluster_name).await;
    let mut stale = vec![cluster.join(NAME)];
    if let Some(folder) = &found.socket_dir {
        stale.extend([folder.join(".s.PGSQL.5432"), folder.join(".s.PGSQL.5432.lock")]);
    }
    for path in stale {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_running_postgres_is_parsed() {
        let text =
            "812\n/d/postgres\n1763700000\n5432\n/run/revwallet/ab\n\n  5432001   1234\nready   \n";

        let found = PidFile::parse(text);

        assert_eq!(
            found,
            Some(PidFile {
                pid: 812,
                socket_dir: Some("/run/revwallet/ab".into()),
                is_ready: true
            })
        );
    }

    #[test]
    fn an_incomplete_file_is_not_ready() {
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(
            PidFile::parse("812\n/d\n1763700000\n5432\n"),
            Some(PidFile { pid: 812, socket_dir: None, is_ready: false })
        );
        assert!(
            !PidFile::parse("812\n/d\n17\n5432\n/s\n\n 1 2\nstopping\n")
                .expect("it has a pid")
                .is_ready
        );
    }
}
