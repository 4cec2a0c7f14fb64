//! Deposits through nginx as it is configured here, beside the same to the program itself.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::book::Book;
use super::load::{Ask, Load, Target};
use super::meter::Meter;
use super::report::{Figure, Part, Wanted, median, middle};
use super::server::Server;
use super::{ACCOUNTS, Bench, BenchArgs, check};

const CONNECTIONS: usize = 64;

/// How often each is measured: the middle counts.
const TURNS: u32 = 7;

/// Longest that nginx may take to listen.
const START_MAX: Duration = Duration::from_secs(10);

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Part> {
    let mut part = Part::default();
    if let Err(cause) = runs(&bench.args).await {
        part.notes.push(format!("The edge was not measured: {cause}."));
        return Ok(part);
    }
    let book = Book::create(&bench.embedded, "edge").await?;
    let server = Server::start_with(&book, &["--trusted-proxies=127.0.0.1"]).await?;
    let edge = Edge::start(&bench.args, &server.address, &bench.folder).await?;
    let target = Target::prepare(&server.address, ACCOUNTS).await?;
    let alone = Meter::new(&[server.id()], &bench.folder);
    let both = Meter::new(&[&[server.id()], &edge.workers()[..]].concat(), &bench.folder);
    let load = |address| Load {
        address,
        ask: Ask::Deposit,
        connections: CONNECTIONS,
        accounts: ACCOUNTS as usize,
        time: bench.args.each,
    };
    let (mut direct, mut through, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        tracing::info!("deposits, directly and through nginx, turn {turn} of {TURNS}");
        let one = target.load(&alone, load(&server.address)).await?;
        let other = target.load(&both, load(&edge.address)).await?;
        ratios.push(other.0.rate / one.0.rate);
        direct.push(one);
        through.push(other);
    }
    edge.end().await?;
    server.kill().await?;
    for (what, runs) in [("deposits, directly", direct), ("the same through nginx", through)] {
        let (run, used) = middle(runs)?;
        part.figures.push(Figure { what: what.to_owned(), clients: CONNECTIONS, run, used });
    }
    let what = "deposits through nginx at 64 connections, against directly";
    part.goal(what, median(ratios), Wanted::AtLeast(0.6));
    part.notes.push(format!("The edge: {}.", check::deposits(&book, &target).await?));
    Ok(part)
}

/// Whether there is what it takes; else why not.
async fn runs(args: &BenchArgs) -> anyhow::Result<()> {
    let start = args.nginx_folder.join("start");
    if !start.exists() {
        bail!("there is no {}, see --nginx-folder", start.display());
    }
    let quiet = Command::new(&args.nginx).arg("-v").stderr(Stdio::null()).status().await;
    let found = quiet.is_ok_and(|status| status.success());
    if !found {
        bail!("{} cannot be run, see --nginx", args.nginx.display());
    }
    Ok(())
}

/// Nginx as it serves strangers, but for the limits of one address: the load has only one.
struct Edge {
    child: Child,
    address: String,
}

impl Edge {
    async fn start(args: &BenchArgs, api: &str, folder: &Path) -> anyhow::Result<Self> {
        let address = free_address().await?;
        let child = Command::new("sh")
            .arg(args.nginx_folder.join("start"))
            .env("EDGE_NGINX", &args.nginx)
            .env("EDGE_RUN", folder.join("edge"))
            .env("EDGE_API", api)
            .env("EDGE_USERS_FILE", folder.join("nobody"))
            .env("EDGE_LISTEN", &address)
            .env("EDGE_LISTEN_STATUS", free_address().await?)
            .env("EDGE_RATE", "off")
            .env("EDGE_CONNECTIONS", "10000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let edge = Self { child, address };
        let began = Instant::now();
        while TcpStream::connect(&edge.address).await.is_err() {
            if began.elapsed() > START_MAX {
                bail!("nginx did not start; try: EDGE_API={api} nginx/start --check");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(edge)
    }

    /// The processes that do the work.
    fn workers(&self) -> Vec<u32> {
        let master = self.child.id().unwrap_or_default();
        let children = format!("/proc/{master}/task/{master}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        children.split_whitespace().filter_map(|id| id.parse().ok()).collect()
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.ask_to_end();
        self.child.wait().await.context("cannot end nginx")?;
        Ok(())
    }

    fn ask_to_end(&self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended by itself.
            let _ended = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }
}

/// Killed without a word it would leave its workers behind.
impl Drop for Edge {
    fn drop(&mut self) {
        self.ask_to_end();
    }
}

/// An address that nobody listens on now.
async fn free_address() -> anyhow::Result<String> {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    Ok(socket.local_addr()?.to_string())
}
