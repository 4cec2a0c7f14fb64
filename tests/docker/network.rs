//! A Docker network with a database, programs from the image and nginx, which is removed at the end of the test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{IMAGE, docker, inspect};

/// Longest wait for any condition in these tests.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Flags of a hardened container.
const HARDENED: [&str; 8] = [
    "--read-only",
    "--user=65532:65532",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--pids-limit=256",
    "--memory=256m",
    "--health-interval=1s",
    "--health-start-period=1s",
];

pub struct TestNetwork {
    name: String,
}

impl TestNetwork {
    /// Creates a network with a database and waits until it accepts connections.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let network = Self { name: format!("revwallet-test-{process}-{number}") };
        docker(&["network", "create", &network.name]).unwrap();
        let image = pinned_image("postgres:");
        network
            .start_container("db", &["--env=POSTGRES_PASSWORD=secret", "--shm-size=256m", &image]);
        let ready = ["exec", &network.container("db"), "pg_isready", "--host=127.0.0.1", "--quiet"];
        eventually("the database accepts connections", || docker(&ready).is_ok());
        network
    }

    /// Returns the name of the container of a part.
    pub fn container(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    /// Starts a container, which has the name of its part as host name.
    fn start_container(&self, part: &str, arguments: &[&str]) {
        let (name, network) = (self.container(part), format!("--network={}", self.name));
        let alias = format!("--network-alias={part}");
        let arguments =
            [&["run", "--detach", "--name", &name, &network, &alias], arguments].concat();
        docker(&arguments).unwrap_or_else(|error| panic!("{part} does not start: {error}"));
    }

    /// Starts a hardened server from the image and waits until it is healthy.
    pub fn start_server(&self, part: &str) {
        let settings = [
            "--network-alias=revwallet-api",
            "--env=DATABASE_URL=postgres://postgres:secret@db/postgres",
            "--env=REVWALLET_ACCESS=open",
            "--env=REVWALLET_TRUSTED_PROXIES=10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
        ];
        self.start_container(part, &[&HARDENED[..], &settings, &[IMAGE]].concat());
        self.wait_for_health(part, "healthy");
    }

    /// Waits until a part has a health status.
    pub fn wait_for_health(&self, part: &str, health: &str) {
        let name = self.container(part);
        eventually(&format!("{part} is {health}"), || {
            let is_running = inspect(&name, "{{.State.Running}}") == "true";
            assert!(
                is_running,
                "{part} has exited: {}",
                docker(&["logs", "--tail=5", &name]).unwrap()
            );
            inspect(&name, "{{.State.Health.Status}}") == health
        });
    }

    /// Starts nginx in front of the servers and returns its published address.
    pub fn start_edge(&self) -> SocketAddr {
        let mount = format!("--volume={}/nginx:/etc/edge:ro", env!("CARGO_MANIFEST_DIR"));
        let (image, no_privileges) = (pinned_image("nginx:"), "--security-opt=no-new-privileges");
        self.start_container(
            "edge",
            &[
                "--publish=127.0.0.1::8080",
                "--read-only",
                "--tmpfs=/tmp:mode=1777",
                "--user=101:101",
                "--cap-drop=ALL",
                no_privileges,
                &mount,
                "--entrypoint=/etc/edge/start",
                "--env=EDGE_RATE=off",
                &image,
            ],
        );
        let port = docker(&["port", &self.container("edge"), "8080"]).unwrap();
        let address = port.parse().unwrap();
        let (edge, url) = (self.container("edge"), "http://127.0.0.1:8081/healthz");
        let ready = ["exec", &edge, "wget", "-q", "-O", "/dev/null", url];
        eventually("nginx is healthy", || docker(&ready).is_ok());
        address
    }

    /// Runs a command of the program on the database of this network.
    pub fn run_program(&self, arguments: &[&str]) -> Result<String, String> {
        let network = format!("--network={}", self.name);
        let database = "--env=DATABASE_URL=postgres://postgres:secret@db/postgres";
        let start = ["run", "--rm", &network, database];
        docker(&[&start, &HARDENED[..], &[IMAGE], arguments].concat())
    }

    /// Returns the response to a GET request from within the network, sent by another image: ours has no HTTP client.
    pub fn fetch(&self, url: &str) -> String {
        let (network, image) = (format!("--network={}", self.name), pinned_image("nginx:"));
        let arguments =
            ["run", "--rm", &network, "--entrypoint=wget", &image, "-q", "-O", "-", url];
        docker(&arguments).unwrap()
    }

    pub fn log(&self, part: &str) -> String {
        docker(&["logs", &self.container(part)]).unwrap()
    }
}

impl Drop for TestNetwork {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for part in ["api-1", "api-2", "edge"] {
                let log = docker(&["logs", "--tail=20", &self.container(part)]);
                eprintln!("{part}: {}", log.unwrap_or_else(|error| error));
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

/// Returns the image that the compose file pins for a server.
fn pinned_image(prefix: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker-compose.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let images = text.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    images.into_iter().find(|image| image.starts_with(prefix)).unwrap().to_owned()
}

/// Polls until a condition holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < WAIT_MAX, "not within {WAIT_MAX:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
