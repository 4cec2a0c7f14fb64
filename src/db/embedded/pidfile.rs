//! `postmaster.pid`: what a running Postgres says about itself.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::process::{Holder, end_orphans, holder};

const NAME: &str = "postmaster.pid";

/// The lines of the file that matter to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub pid: i32,
    pub socket_dir: Option<PathBuf>,
    /// Whether Postgres says that it accepts connections.
    pub ready: bool,
}

impl PidFile {
    /// The pid file of a cluster; nothing when there is none, or when Postgres has only begun to write it.
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
        // Then the cluster, the time it was started, the port, the socket, the address, the shared memory, the state.
        let socket_dir = lines.nth(3).filter(|line| !line.is_empty()).map(PathBuf::from);
        Some(Self { pid, socket_dir, ready: lines.nth(2) == Some("ready") })
    }
}

/// The postmaster that serves this cluster now.
///
/// If there is none, all that a killed one left behind is cleared away: Postgres itself would believe a pid file whose
/// number has been given to another process meanwhile, and would wait for busy sessions for ever.
pub(super) async fn running(cluster: &Path, cluster_name: &str) -> anyhow::Result<Option<PidFile>> {
    let Some(found) = PidFile::read(cluster)? else { return Ok(None) };
    match holder(found.pid, cluster) {
        Holder::Postmaster => return Ok(Some(found)),
        Holder::Unclear => return Ok(None),
        Holder::Stranger => {}
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
    fn a_running_postgres_is_read() {
        let text =
            "812\n/d/postgres\n1763700000\n5432\n/run/revwallet/ab\n\n  5432001   1234\nready   \n";

        let found = PidFile::parse(text);

        assert_eq!(
            found,
            Some(PidFile { pid: 812, socket_dir: Some("/run/revwallet/ab".into()), ready: true })
        );
    }

    #[test]
    fn a_file_that_is_being_written_is_not_ready() {
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(
            PidFile::parse("812\n/d\n1763700000\n5432\n"),
            Some(PidFile { pid: 812, socket_dir: None, ready: false })
        );
        assert!(
            !PidFile::parse("812\n/d\n17\n5432\n/s\n\n 1 2\nstopping\n")
                .expect("it has a pid")
                .ready
        );
    }
}
