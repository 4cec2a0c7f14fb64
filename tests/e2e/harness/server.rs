//! A Postgres of a test's own, reached over the network as one elsewhere would be.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::unistd::{User, geteuid};

use super::program::{self, Folder};
use super::{eventually, free_address};

/// Its data, before it runs.
pub struct Cluster(Folder);

impl Cluster {
    /// By `initdb` with these options.
    pub fn make(options: &[&str]) -> Self {
        let cluster = Self(Folder::new());
        cluster.hand_over("", 0o755);
        let made = unprivileged(programs().join("initdb"))
            .args(options)
            .args(["--no-sync", "-D"])
            .arg(cluster.path("cluster"))
            .status();
        assert!(made.unwrap().success());
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.0.join(name)
    }

    /// Writes a file that the server reads.
    pub fn write(&self, name: &str, text: &str, mode: u32) {
        std::fs::write(self.path(name), text).unwrap();
        self.hand_over(name, mode);
    }

    /// The server's data belong to whom it runs as.
    fn hand_over(&self, name: &str, mode: u32) {
        let path = self.path(name);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        if geteuid().is_root() {
            chown(path, Some(owner().uid.as_raw()), Some(owner().gid.as_raw())).unwrap();
        }
    }

    /// Runs it with these settings.
    pub async fn start(self, settings: &[&str]) -> Server {
        let address = free_address();
        let socket = format!("unix_socket_directories={}", self.0.0.display());
        let port = format!("port={}", address.port());
        let usual = [&socket, &port, "listen_addresses=127.0.0.1", "fsync=off"];
        let child = unprivileged(programs().join("postgres"))
            .arg("-D")
            .arg(self.path("cluster"))
            .args(usual.iter().chain(settings).flat_map(|setting| ["-c", setting]))
            .spawn()
            .unwrap();
        let server = Server { child, address, folder: self.0 };
        // It listens before it answers.
        let ready = programs().join("pg_isready");
        let whom = ["-q".to_owned(), "-h127.0.0.1".to_owned(), format!("-p{}", address.port())];
        eventually("the server answers", async || {
            Command::new(&ready).args(&whom).status().unwrap().success()
        })
        .await;
        server
    }
}

/// One that runs, until it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// With its socket, and what was written for it.
    pub folder: Folder,
}

impl Drop for Server {
    fn drop(&mut self) {
        program::signal(self.child.id(), "INT");
        let _ended = self.child.wait();
    }
}

/// Where the server's programs are.
pub fn programs() -> PathBuf {
    let script = "source scripts/lib/setup.sh && postgres_bin";
    let here = env!("CARGO_MANIFEST_DIR");
    let said = Command::new("bash").args(["-c", script]).current_dir(here).output().unwrap();
    PathBuf::from(String::from_utf8(said.stdout).unwrap().trim())
}

/// Postgres does not run as root.
fn unprivileged(program: PathBuf) -> Command {
    let mut command = Command::new("setpriv");
    let user = owner();
    let ids = [format!("--reuid={}", user.uid), format!("--regid={}", user.gid)];
    command.args(ids).arg("--clear-groups").arg(&program);
    let mut command = if geteuid().is_root() { command } else { Command::new(program) };
    command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn owner() -> User {
    let named = |name| User::from_name(name).unwrap();
    named("postgres").or_else(|| named("nobody")).unwrap()
}
