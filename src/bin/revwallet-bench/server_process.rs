//! A server under test, as a child process.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::book::BenchBook;

/// Size of the buffer for the server's log, large enough that few reads are needed.
const LOG_BUFFER_BYTES: usize = 256 * 1024;

/// Number of bytes at the start of a log line that the benchmark searches for the log level.
const LEVEL_WITHIN_BYTES: usize = 64;
const LEVEL_INFO: &[u8] = br#""level":"INFO""#;

/// Settings with which every server is started, in addition to the settings of the scenario.
const SETTINGS: [&str; 4] =
    ["--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0", "--log-format=json", "--access=open"];

/// A running `revwallet serve`, killed when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    pub address: String,
    /// Address of the internal listener, at which other servers on the same ledger reach this server.
    pub internal_address: String,
}

impl ServerProcess {
    /// Starts a server on a free port and waits until it listens. The server logs no successful requests, unless
    /// `settings` contains `--log-success-ratio`.
    pub(crate) async fn start(
        binary: &Path,
        book: &BenchBook,
        settings: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.arg("serve").args(SETTINGS).args(["--database-url", &book.url]);
        // All load comes from one address. The limit is set by an environment variable, which an older binary without
        // this setting ignores.
        command.env("REVWALLET_HTTP_CONNECTIONS_PER_ADDRESS", "100000");
        if !settings.iter().any(|setting| setting.starts_with("--log-success-ratio")) {
            command.arg("--log-success-ratio=0");
        }
        let mut child = command
            .args(settings)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let output = child.stdout.take().context("standard output is piped")?;
        let mut lines = BufReader::with_capacity(LOG_BUFFER_BYTES, output).lines();
        while let Some(line) = lines.next_line().await? {
            let line: Value = serde_json::from_str(&line)?;
            if line["event"] == "serve.listening" {
                let address = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                let (address, internal_address) = (address("address"), address("internal_address"));
                #[expect(
                    clippy::disallowed_methods,
                    reason = "ends with the process whose log it reads"
                )]
                tokio::spawn(forward_warnings(lines.into_inner()));
                return Ok(Self { child, address, internal_address });
            }
        }
        bail!("{} exited before it listened", binary.display())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Kills the server without a graceful shutdown. Everything that the server acknowledged must still be in the
    /// ledger.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill the server under test")
    }
}

/// Logs the server's warnings and errors, which may explain a measurement, and discards all other lines.
async fn forward_warnings(mut log: BufReader<ChildStdout>) {
    let mut line = Vec::new();
    while let Ok(1..) = log.read_until(b'\n', &mut line).await {
        let level = line.get(..LEVEL_WITHIN_BYTES).unwrap_or(&line);
        if !level.windows(LEVEL_INFO.len()).any(|part| part == LEVEL_INFO) {
            tracing::warn!(
                "the server under test logged: {}",
                String::from_utf8_lossy(&line).trim_end()
            );
        }
        line.clear();
    }
}
