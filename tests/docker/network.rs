//! A network with a database, programs from the image and nginx, which is gone with the test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{IMAGE, docker, fact};

/// Longest that anything here may take to become as it should be.
const PATIENCE: Duration = Duration::from_secs(90);

/// How the program is run wherever somebody is careful.
const LOCKED: [&str; 8] = [
    "--read-only",
    "--user=65532:65532",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--pids-limit=256",
    "--memory=256m",
    "--health-interval=1s",
    "--health-start-period=1s",
];

pub struct Lab {
    name: String,
}

impl Lab {
    /// A network with a database that takes connections.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { name: format!("revwallet-test-{process}-{number}") };
        docker(&["network", "create", &lab.name]).unwrap();
        let image = server("postgres:");
        lab.run("db", &["--env=POSTGRES_PASSWORD=secret", "--shm-size=256m", &image]);
        let ready = ["exec", &lab.container("db"), "pg_isready", "--host=127.0.0.1", "--quiet"];
        eventually("the database takes connections", || docker(&ready).is_ok());
        lab
    }

    /// What a part is called outside of the network.
    pub fn container(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    /// Starts a part; in the network it goes by its own name.
    fn run(&self, part: &str, words: &[&str]) {
        let (name, network) = (self.container(part), format!("--network={}", self.name));
        let alias = format!("--network-alias={part}");
        let whole = [&["run", "--detach", "--name", &name, &network, &alias], words].concat();
        docker(&whole).unwrap_or_else(|complaint| panic!("{part} does not start: {complaint}"));
    }

    /// Starts a server from the image, as locked up as it can be, and waits until the engine calls it healthy.
    pub fn server(&self, part: &str) {
        let settings = [
            "--network-alias=revwallet-api",
            "--env=DATABASE_URL=postgres://postgres:secret@db/postgres",
            "--env=REVWALLET_ACCESS=open",
            "--env=REVWALLET_TRUSTED_PROXIES=10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
        ];
        self.run(part, &[&LOCKED[..], &settings, &[IMAGE]].concat());
        self.becomes(part, "healthy");
    }

    /// Waits until the engine says that of a part's health.
    pub fn becomes(&self, part: &str, health: &str) {
        let name = self.container(part);
        eventually(&format!("{part} is {health}"), || {
            let running = fact(&name, "{{.State.Running}}") == "true";
            assert!(running, "{part} has ended: {}", docker(&["logs", "--tail=5", &name]).unwrap());
            fact(&name, "{{.State.Health.Status}}") == health
        });
    }

    /// Starts nginx in front of the servers, published on an address that is returned.
    pub fn edge(&self) -> SocketAddr {
        let mount = format!("--volume={}/nginx:/etc/edge:ro", env!("CARGO_MANIFEST_DIR"));
        let (image, lock) = (server("nginx:"), "--security-opt=no-new-privileges");
        self.run(
            "edge",
            &[
                "--publish=127.0.0.1::8080",
                "--read-only",
                "--tmpfs=/tmp:mode=1777",
                "--user=101:101",
                "--cap-drop=ALL",
                lock,
                &mount,
                "--entrypoint=/etc/edge/start",
                "--env=EDGE_RATE=off",
                &image,
            ],
        );
        let port = docker(&["port", &self.container("edge"), "8080"]).unwrap();
        let address = port.parse().unwrap();
        let (edge, asked) = (self.container("edge"), "http://127.0.0.1:8081/healthz");
        let ready = ["exec", &edge, "wget", "-q", "-O", "/dev/null", asked];
        eventually("nginx listens", || docker(&ready).is_ok());
        address
    }

    /// Runs a command of the program on this network's database.
    pub fn command(&self, words: &[&str]) -> Result<String, String> {
        let network = format!("--network={}", self.name);
        let database = "--env=DATABASE_URL=postgres://postgres:secret@db/postgres";
        let start = ["run", "--rm", &network, database];
        docker(&[&start, &LOCKED[..], &[IMAGE], words].concat())
    }

    /// What a neighbor on the network is answered: the image itself holds nothing that could ask.
    pub fn fetch(&self, url: &str) -> String {
        let (network, image) = (format!("--network={}", self.name), server("nginx:"));
        let words = ["run", "--rm", &network, "--entrypoint=wget", &image, "-q", "-O", "-", url];
        docker(&words).unwrap()
    }

    pub fn log(&self, part: &str) -> String {
        docker(&["logs", &self.container(part)]).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for part in ["api-1", "api-2", "edge"] {
                let log = docker(&["logs", "--tail=20", &self.container(part)]);
                eprintln!("{part}: {}", log.unwrap_or_else(|complaint| complaint));
            }
        }
        let filter = format!("name={}-", self.name);
        let names = docker(&["ps", "--all", "--quiet", "--filter", &filter]).unwrap_or_default();
        for name in names.lines() {
            let _gone = docker(&["rm", "--force", "--volumes", name]);
        }
        let _gone = docker(&["network", "rm", &self.name]);
    }
}

/// The image of a server, as the compose file pins it.
fn server(prefix: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker-compose.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let images = text.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    images.into_iter().find(|image| image.starts_with(prefix)).unwrap().to_owned()
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
