//! Processes that are not children of this process: the Postgres that a pid file names, and sessions of a killed
//! Postgres.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::POLL_INTERVAL;

/// Time that sessions have to end on their own after their postmaster was killed. Sessions that are still busy after
/// this time are killed.
const NOTICE_WAIT_MAX: Duration = Duration::from_millis(500);

/// Longest time to wait until killed processes have ended.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Kind of process to which the process id from a pid file now belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PidHolder {
    /// The postmaster of this cluster.
    Postmaster,
    /// A Postgres process whose command line names no cluster. At startup, Postgres itself checks for a conflict with
    /// this process.
    UnknownPostgres,
    /// No process or an unrelated process has the recorded id; ids are reused, especially after a container restarts.
    Other,
}

/// Returns which kind of process has the id `pid` now.
pub(super) fn holder_of(pid: i32, cluster: &Path) -> PidHolder {
    command_line(pid).map_or(PidHolder::Other, |command| classify(&command, cluster))
}

/// Whether the postmaster with this `pid` has exited. A process that is still exiting has no command line either, so a
/// missing command line alone does not prove the exit.
pub(super) fn postmaster_has_ended(pid: i32, cluster: &Path) -> bool {
    command_line(pid).map_or_else(
        || is_gone(pid),
        |command| classify(&command, cluster) != PidHolder::Postmaster,
    )
}

/// Classifies a process by its command line.
fn classify(command: &str, cluster: &Path) -> PidHolder {
    let argument = format!(" -D {}", cluster.display());
    let program = command.split(' ').next().unwrap_or_default();
    let is_postgres = [program, command.split(" -D ").next().unwrap_or_default()]
        .iter()
        .any(|program| matches!(program.rsplit('/').next(), Some("postgres" | "postmaster")));
    let rest = command.find(&argument).map(|at| &command[at + argument.len()..]);
    match rest {
        Some(rest) if is_postgres && (rest.is_empty() || rest.starts_with(' ')) => {
            PidHolder::Postmaster
        }
        None if is_postgres && !command.contains(" -D ") => PidHolder::UnknownPostgres,
        _ => PidHolder::Other,
    }
}

/// Sends a signal; it is not an error if the process has ended.
pub(super) fn send(pid: i32, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(pid), signal)
        && error != nix::errno::Errno::ESRCH
    {
        warn!("cannot send {signal} to Postgres process {pid}: {error}");
    }
}

/// Ends the sessions of a killed postmaster, which hold the shared memory that the next postmaster needs.
///
/// The process title of each session contains the name of the cluster. The caller must make sure that no postmaster of
/// the cluster is running.
pub(super) async fn end_orphans(cluster_name: &str) {
    let started = Instant::now();
    let mut orphans = session_processes(cluster_name);
    while !orphans.is_empty() && started.elapsed() < KILL_WAIT_MAX {
        if NOTICE_WAIT_MAX < started.elapsed() {
            for pid in &orphans {
                send(*pid, Signal::SIGKILL);
            }
        }
        sleep(POLL_INTERVAL).await;
        orphans.retain(|pid| !is_gone(*pid));
    }
}

/// Returns the ids of all processes of a cluster except its postmaster.
fn session_processes(cluster_name: &str) -> Vec<i32> {
    let title = format!("postgres: {cluster_name}: ");
    list_processes()
        .into_iter()
        .filter(|(_, command)| command.starts_with(&title))
        .map(|(pid, _)| pid)
        .collect()
}

/// Returns the command line of a process; `None` if the process has ended or is a zombie.
#[cfg(target_os = "linux")]
fn command_line(pid: i32) -> Option<String> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned();
    (!line.is_empty()).then_some(line)
}

/// Whether a process has ended; a zombie counts as ended.
#[cfg(target_os = "linux")]
fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|state| state.is_empty() || state.starts_with(['Z', 'X']))
}

#[cfg(target_os = "linux")]
fn list_processes() -> Vec<(i32, String)> {
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    folders
        .filter_map(|folder| folder.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, command_line(pid)?)))
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn command_line(pid: i32) -> Option<String> {
    let line = ps(&["-p", &pid.to_string()]).into_iter().next()?.1;
    (!line.starts_with('(') && !line.is_empty()).then_some(line)
}

#[cfg(not(target_os = "linux"))]
fn is_gone(pid: i32) -> bool {
    command_line(pid).is_none()
}

#[cfg(not(target_os = "linux"))]
fn list_processes() -> Vec<(i32, String)> {
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

    fn check(command: &str, expected: &PidHolder) {
        assert_eq!(&classify(command, Path::new("/data/postgres")), expected, "{command}");
    }

    #[test]
    fn a_postmaster_is_recognized_by_its_cluster() {
        check(
            "/usr/lib/postgresql/15/bin/postgres -D /data/postgres -c port=5432",
            &PidHolder::Postmaster,
        );
        check("/usr/lib/postgresql/15/bin/postgres -D /data/postgres", &PidHolder::Postmaster);
        check("/a folder/bin/postgres -D /data/postgres -c port=5432", &PidHolder::Postmaster);
    }

    #[test]
    fn a_reused_process_id_is_recognized() {
        check("/usr/bin/revwallet serve", &PidHolder::Other);
        check(
            "/usr/lib/postgresql/15/bin/postgres -D /data/postgres2 -c port=5432",
            &PidHolder::Other,
        );
        check("postgres: revwallet-00: checkpointer", &PidHolder::Other);
        check("grep -D /data/postgres", &PidHolder::Other);
        assert_eq!(holder_of(i32::MAX, Path::new("/data")), PidHolder::Other);
    }

    #[test]
    fn a_postgres_without_a_visible_cluster_is_unknown() {
        check("/usr/lib/postgresql/15/bin/postgres", &PidHolder::UnknownPostgres);
    }
}
