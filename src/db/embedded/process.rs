//! Looking at processes that are not our children: is the Postgres that a file names still there, and did it leave any behind?

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::POLL;

/// How long sessions may take to notice that their postmaster was killed; one that is busy never does.
const NOTICE_WAIT_MAX: Duration = Duration::from_millis(500);

/// How long the kernel may take to end killed processes.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Who has the process id that a cluster's pid file names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The postmaster of this very cluster.
    Postmaster,
    /// Some Postgres that does not say which cluster it serves; Postgres itself shall judge.
    Unclear,
    /// Nobody, or a process that has nothing to do with this cluster: ids are used again, after a restart of a container soon.
    Stranger,
}

/// Who has `pid` now.
pub(super) fn holder(pid: i32, cluster: &Path) -> Holder {
    command_of(pid).map_or(Holder::Stranger, |command| judge(&command, cluster))
}

/// Whether the postmaster that had `pid` has ended, to the last step: one that is ending has no command line any more.
pub(super) fn postmaster_has_ended(pid: i32, cluster: &Path) -> bool {
    command_of(pid)
        .map_or_else(|| is_gone(pid), |command| judge(&command, cluster) != Holder::Postmaster)
}

fn judge(command: &str, cluster: &Path) -> Holder {
    let ours = format!(" -D {}", cluster.display());
    let program = command.split(' ').next().unwrap_or_default();
    let is_postgres = [program, command.split(" -D ").next().unwrap_or_default()]
        .iter()
        .any(|program| matches!(program.rsplit('/').next(), Some("postgres" | "postmaster")));
    let rest = command.find(&ours).map(|at| &command[at + ours.len()..]);
    match rest {
        Some(rest) if is_postgres && (rest.is_empty() || rest.starts_with(' ')) => {
            Holder::Postmaster
        }
        None if is_postgres && !command.contains(" -D ") => Holder::Unclear,
        _ => Holder::Stranger,
    }
}

/// Sends a signal; a process that is gone is no error.
pub(super) fn send(pid: i32, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(pid), signal)
        && error != nix::errno::Errno::ESRCH
    {
        warn!("cannot send {signal} to the Postgres process {pid}: {error}");
    }
}

/// Ends what a killed postmaster left behind. Its sessions hold the shared memory that the next one needs.
///
/// Postgres puts the cluster's name in the title of each; the caller knows that no postmaster of that name runs.
pub(super) async fn end_orphans(cluster_name: &str) {
    let began = Instant::now();
    let mut orphans = sessions(cluster_name);
    while !orphans.is_empty() && began.elapsed() < KILL_WAIT_MAX {
        if NOTICE_WAIT_MAX < began.elapsed() {
            for pid in &orphans {
                send(*pid, Signal::SIGKILL);
            }
        }
        sleep(POLL).await;
        orphans.retain(|pid| !is_gone(*pid));
    }
}

/// The processes of a cluster other than its postmaster.
fn sessions(cluster_name: &str) -> Vec<i32> {
    let title = format!("postgres: {cluster_name}: ");
    all()
        .into_iter()
        .filter(|(_, command)| command.starts_with(&title))
        .map(|(pid, _)| pid)
        .collect()
}

/// The command line of a process; nothing when it is gone or only waits for its parent to notice.
#[cfg(target_os = "linux")]
fn command_of(pid: i32) -> Option<String> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned();
    (!line.is_empty()).then_some(line)
}

/// Whether nothing is left of a process, or only its number until its parent looks.
#[cfg(target_os = "linux")]
fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|state| state.is_empty() || state.starts_with(['Z', 'X']))
}

#[cfg(target_os = "linux")]
fn all() -> Vec<(i32, String)> {
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    folders
        .filter_map(|folder| folder.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, command_of(pid)?)))
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn command_of(pid: i32) -> Option<String> {
    let line = ps(&["-p", &pid.to_string()]).into_iter().next()?.1;
    (!line.starts_with('(') && !line.is_empty()).then_some(line)
}

#[cfg(not(target_os = "linux"))]
fn is_gone(pid: i32) -> bool {
    command_of(pid).is_none()
}

#[cfg(not(target_os = "linux"))]
fn all() -> Vec<(i32, String)> {
    ps(&["-ax"])
}

#[cfg(not(target_os = "linux"))]
fn ps(selection: &[&str]) -> Vec<(i32, String)> {
    let output = std::process::Command::new("ps")
        .args(selection)
        .args(["-ww", "-o", "pid=,command="])
        .output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().split_once(' '))
        .filter_map(|(pid, command)| Some((pid.parse().ok()?, command.trim().to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, expected: &Holder) {
        assert_eq!(&judge(command, Path::new("/data/postgres")), expected, "{command}");
    }

    #[test]
    fn a_postmaster_is_known_by_its_cluster() {
        check(
            "/usr/lib/postgresql/15/bin/postgres -D /data/postgres -c port=5432",
            &Holder::Postmaster,
        );
        check("/usr/lib/postgresql/15/bin/postgres -D /data/postgres", &Holder::Postmaster);
        check("/a folder/bin/postgres -D /data/postgres -c port=5432", &Holder::Postmaster);
    }

    #[test]
    fn a_reused_process_id_is_a_stranger() {
        check("/usr/bin/revwallet serve", &Holder::Stranger);
        check(
            "/usr/lib/postgresql/15/bin/postgres -D /data/postgres2 -c port=5432",
            &Holder::Stranger,
        );
        check("postgres: revwallet-00: checkpointer", &Holder::Stranger);
        check("grep -D /data/postgres", &Holder::Stranger);
        assert_eq!(holder(i32::MAX, Path::new("/data")), Holder::Stranger);
    }

    #[test]
    fn a_postgres_that_does_not_say_its_cluster_is_left_to_postgres() {
        check("/usr/lib/postgresql/15/bin/postgres", &Holder::Unclear);
    }
}
