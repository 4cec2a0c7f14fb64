//! The program as a separate process, for tests that start, fail or kill it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::Client;

/// A running process of the program.
pub struct Program {
    child: Child,
    pub public: Client,
    pub internal: Client,
    log: Option<LogCheck>,
}

/// Thread that reads the log of a process, and checks each line.
struct LogCheck(JoinHandle<Option<String>>);

/// Exit code and error output of a finished process.
#[derive(Debug)]
pub struct Exit {
    pub code: Option<i32>,
    pub stderr: String,
}

/// A temporary folder that is removed at the end of the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "revwallet-program-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Returns the flag that makes this folder the data directory.
    pub fn setting(&self) -> String {
        format!("--data-dir={}", self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that failed or killed the program leaves a Postgres server running.
        for process in postgres_of(&self.0) {
            signal(process, "KILL");
        }
        let _already_gone = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns the folder that a function of `scripts/lib/setup.sh` prints; the function installs what is missing.
pub fn tool_folder(function: &str) -> PathBuf {
    // Two tests at once would install the same tool into the same folder.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let root = env!("CARGO_MANIFEST_DIR");
    let script = format!("source scripts/lib/setup.sh && {function}");
    let output = Command::new("bash").args(["-c", &script]).current_dir(root).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{function}: {stderr}");
    Path::new(root).join(String::from_utf8(output.stdout).unwrap().trim())
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap()
}

/// Returns the program with the given arguments and an empty environment except for `PATH`.
pub fn command(arguments: &[&str]) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_revwallet")), arguments)
}

fn command_of(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path()).stdin(Stdio::null());
    command
}

/// Runs the program until it exits.
pub fn run(arguments: &[&str]) -> Exit {
    let output = command(arguments).output().unwrap();
    Exit { code: output.status.code(), stderr: String::from_utf8(output.stderr).unwrap() }
}

impl Program {
    /// Starts the program and waits until it logs its addresses.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::try_start(arguments).await.unwrap_or_else(|exit| panic!("did not start: {exit:?}"))
    }

    pub async fn try_start(arguments: &[&str]) -> Result<Self, Exit> {
        Self::try_start_with(command, checked_line, arguments).await
    }

    /// Starts the program of another version, whose log is not checked.
    pub async fn start_version(program: &Path, arguments: &[&str]) -> Self {
        let command = |arguments: &[&str]| command_of(program, arguments);
        let started = Self::try_start_with(command, super::logs::parse_line, arguments).await;
        started.unwrap_or_else(|exit| panic!("{} did not start: {exit:?}", program.display()))
    }

    async fn try_start_with(
        command: impl FnOnce(&[&str]) -> Command,
        parse_line: fn(&str) -> Value,
        arguments: &[&str],
    ) -> Result<Self, Exit> {
        let defaults =
            ["--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0", "--log-format=json"];
        let defaults = defaults.into_iter().filter(|default| {
            let name = default.split('=').next().unwrap_or_default();
            !arguments.iter().any(|argument| argument.split('=').next() == Some(name))
        });
        let arguments: Vec<&str> = defaults.chain(arguments.iter().copied()).collect();
        let mut child =
            command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, mut receive) = oneshot::channel();
        let log = LogCheck::start(child.stdout.take().unwrap(), parse_line, send);
        let listening = tokio::time::timeout(Duration::from_mins(1), &mut receive).await;
        match listening.expect("the program listens or exits") {
            Ok(line) => {
                // A process with `--only=worker` has no public address.
                let client = |key: &str| {
                    Client::new(line[key].as_str().unwrap_or("127.0.0.1:9").parse().unwrap())
                };
                let (public, internal) = (client("address"), client("internal_address"));
                Ok(Self { child, public, internal, log: Some(log) })
            }
            Err(_closed) => {
                if let Some(fault) = log.finish() {
                    panic!("the program logged an invalid line: {fault}");
                }
                let mut stderr = String::new();
                child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
                Err(Exit { code: child.wait().unwrap().code(), stderr })
            }
        }
    }

    /// Kills the process with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Requests a graceful shutdown and waits for it.
    pub async fn stop(self) -> ExitStatus {
        self.signal("TERM");
        self.wait().await
    }

    /// Waits until the process exits.
    pub async fn wait(mut self) -> ExitStatus {
        let mut status = None;
        super::eventually("the program has exited", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// Resident memory.
    pub fn memory_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Peak of the resident memory.
    pub fn memory_peak_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _status = self.child.wait();
        if let Some(log) = self.log.take()
            && let Some(fault) = log.finish()
            && !std::thread::panicking()
        {
            panic!("the program logged an invalid line: {fault}");
        }
    }
}

impl LogCheck {
    /// Parses each line with `parse_line`, which panics if the line is invalid. Sends the line with the addresses to
    /// `listening`.
    fn start(
        output: ChildStdout,
        parse_line: fn(&str) -> Value,
        listening: oneshot::Sender<Value>,
    ) -> Self {
        Self(std::thread::spawn(move || {
            let (mut output, mut listening) = (BufReader::new(output), Some(listening));
            let (mut bytes, mut fault) = (Vec::new(), None);
            // Reads until the end, even after a fault, so that the program never blocks on a full pipe.
            while output.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
                let line = String::from_utf8_lossy(&bytes);
                // The last line of a killed process may be incomplete.
                if let Some(complete) = line.strip_suffix('\n') {
                    match std::panic::catch_unwind(|| parse_line(complete)) {
                        Ok(fields) if fields["event"] == "serve.listening" => {
                            let _no_longer_awaited =
                                listening.take().map(|listening| listening.send(fields));
                        }
                        Ok(_) => {}
                        Err(_printed_by_the_panic_hook) => {
                            fault.get_or_insert_with(|| complete.to_owned());
                        }
                    }
                }
                bytes.clear();
            }
            fault
        }))
    }

    /// Returns the first invalid line of an ended process.
    fn finish(self) -> Option<String> {
        self.0.join().unwrap()
    }
}

/// Parses a log line; panics if it is invalid or contains a secret.
fn checked_line(line: &str) -> Value {
    super::check::no_secret(line);
    let fields = super::logs::parse_line(line);
    super::check::schema(&fields);
    fields
}

/// Sends a signal; a process that has already exited is ignored.
pub fn signal(process: u32, name: &str) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).arg(process.to_string()).stderr(Stdio::null()).status().unwrap();
}

/// Sends a signal to a process group.
pub fn signal_group(leader: u32, name: &str) {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{name}"), "--", &format!("-{leader}")])
        .stderr(Stdio::null())
        .status()
        .unwrap();
}

/// Returns the Postgres processes of a data directory, recognized by their working directory.
pub fn postgres_of(data_dir: &Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_in_data_dir = |id: &u32| {
        std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd.starts_with(data_dir))
    };
    ids.filter(is_in_data_dir).collect()
}

/// Returns the process id of the postmaster of a data directory.
pub fn postmaster_of(data_dir: &Path) -> u32 {
    let file = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    file.lines().next().unwrap().parse().unwrap()
}

#[test]
fn an_invalid_log_line_is_found_but_an_incomplete_one_is_not() {
    let first_invalid = |output: &str| {
        let mut child = Command::new("printf").arg(output).stdout(Stdio::piped()).spawn().unwrap();
        let log = LogCheck::start(child.stdout.take().unwrap(), checked_line, oneshot::channel().0);
        child.wait().unwrap();
        log.finish()
    };

    assert_eq!(first_invalid(r#"{"ts":"#), None);
    assert_eq!(first_invalid("first\\nsecond\\n"), Some("first".to_owned()));
}
