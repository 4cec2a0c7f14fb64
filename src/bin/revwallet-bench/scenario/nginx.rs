//! Scenario `nginx`: deposits through nginx, with the configuration in this repository, relative to deposits that are
//! sent to the server directly.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::args::BenchArgs;
use crate::book::BenchBook;
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::report::{ReportSection, TargetBound};
use crate::samples::{LoadSample, PairedSamples};
use crate::verification::verify_deposits;

const CONNECTIONS: usize = 64;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 7;

/// Longest time that nginx may take to start and listen.
const START_MAX: Duration = Duration::from_secs(10);

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let mut section = ReportSection::default();
    if let Err(cause) = require_nginx(&context.args).await {
        section.add_note(format!("nginx: not measured, because {cause}."));
        return Ok(section);
    }
    let book = BenchBook::create(&context.postgres, "nginx").await?;
    let server = context.start_server_with(&book, &["--trusted-proxies=127.0.0.1"]).await?;
    let nginx = NginxProcess::start(&context.args, &server.address, &context.scratch_dir).await?;
    let target = LoadTarget::open(&server.address, ACCOUNTS).await?;
    let server_monitor = context.monitor(&[server.id()]);
    let monitor = context.monitor(&[&[server.id()], &nginx.workers()[..]].concat());
    let spec = |address: &str| LoadSpec {
        address: address.to_owned(),
        operation: LoadOperation::Deposit,
        connections: CONNECTIONS,
        wallets: ACCOUNTS as usize,
        duration: context.args.duration,
    };
    let mut samples = PairedSamples::default();
    for turn in 1..=TURNS {
        tracing::info!(
            "measuring deposits, sent directly and through nginx, round {turn} of {TURNS}"
        );
        let direct = target.run(&server_monitor, spec(&server.address)).await?;
        samples.push(direct, target.run(&monitor, spec(&nginx.address)).await?);
    }
    nginx.stop().await?;
    server.kill().await?;
    let label = "deposits through nginx at 64 connections, relative to direct ones";
    section.add_target(label, samples.median_ratio(LoadSample::rate), TargetBound::AtLeast(0.6));
    let labels = ["deposits, direct", "deposits through nginx"];
    section.measurements.extend(samples.into_measurements(labels, CONNECTIONS)?);
    section.add_note(format!("nginx: {}.", verify_deposits(&book, &target).await?));
    Ok(section)
}

/// Returns an error if the nginx binary cannot be run, or if the configuration of nginx is missing.
async fn require_nginx(args: &BenchArgs) -> anyhow::Result<()> {
    let start = args.nginx_dir.join("start");
    if !start.exists() {
        bail!("{} is missing (see --nginx-dir)", start.display());
    }
    let version = Command::new(&args.nginx).arg("-v").stderr(Stdio::null()).status().await;
    if !version.is_ok_and(|status| status.success()) {
        bail!("{} does not run (see --nginx)", args.nginx.display());
    }
    Ok(())
}

/// A running nginx with the configuration in this repository. The limits per address are off, because the whole load
/// comes from one address.
struct NginxProcess {
    child: Child,
    address: String,
}

impl NginxProcess {
    async fn start(args: &BenchArgs, api: &str, scratch_dir: &Path) -> anyhow::Result<Self> {
        let address = free_address().await?;
        let child = Command::new("sh")
            .arg(args.nginx_dir.join("start"))
            .env("EDGE_NGINX", &args.nginx)
            .env("EDGE_RUN", scratch_dir.join("nginx"))
            .env("EDGE_API", api)
            .env("EDGE_USERS_FILE", scratch_dir.join("no-users"))
            .env("EDGE_LISTEN", &address)
            .env("EDGE_LISTEN_STATUS", free_address().await?)
            .env("EDGE_RATE", "off")
            .env("EDGE_CONNECTIONS", "10000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let nginx = Self { child, address };
        let began = Instant::now();
        while TcpStream::connect(&nginx.address).await.is_err() {
            if START_MAX < began.elapsed() {
                bail!("nginx did not start; run: EDGE_API={api} nginx/start --check");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(nginx)
    }

    /// Returns the process ids of the nginx workers, which handle the requests.
    fn workers(&self) -> Vec<u32> {
        let master = self.child.id().unwrap_or_default();
        let children = format!("/proc/{master}/task/{master}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        children.split_whitespace().filter_map(|id| id.parse().ok()).collect()
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.terminate();
        self.child.wait().await.context("cannot stop nginx")?;
        Ok(())
    }

    fn terminate(&self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // This fails only if nginx has already exited.
            let _exited = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }
}

/// Terminates nginx. Killing the master process would leave the workers running.
impl Drop for NginxProcess {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Returns a local address with a free port. Another process may take the port before nginx listens on it.
async fn free_address() -> anyhow::Result<String> {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    Ok(socket.local_addr()?.to_string())
}
