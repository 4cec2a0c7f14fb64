//! A Postgres server of one test, reached over TCP like a remote server.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::unistd::{User, geteuid};

use super::program::{self, Folder};
use super::{eventually, free_address};

/// A data directory that no server runs on yet.
pub struct Cluster(Folder);

impl Cluster {
    /// Runs `initdb` with the given options.
    pub fn init(options: &[&str]) -> Self {
        let cluster = Self(Folder::new());
        cluster.set_owner("", 0o755);
        let status = unprivileged(postgres_bin().join("initdb"))
            .args(options)
            .args(["--no-sync", "-D"])
            .arg(cluster.path("cluster"))
            .status();
        assert!(status.unwrap().success());
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.0.join(name)
    }

    /// Writes a file that the server reads.
    pub fn write(&self, name: &str, text: &str, mode: u32) {
        std::fs::write(self.path(name), text).unwrap();
        self.set_owner(name, mode);
    }

    /// Gives a file to the account that the server runs as.
    fn set_owner(&self, name: &str, mode: u32) {
        let path = self.path(name);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        if geteuid().is_root() {
            chown(path, Some(owner().uid.as_raw()), Some(owner().gid.as_raw())).unwrap();
        }
    }

    /// Starts the server with additional settings.
    pub async fn start(self, settings: &[&str]) -> Server {
        let address = free_address();
        let socket = format!("unix_socket_directories={}", self.0.0.display());
        let port = format!("port={}", address.port());
        let defaults = [&socket, &port, "listen_addresses=127.0.0.1", "fsync=off"];
        let child = unprivileged(postgres_bin().join("postgres"))
            .arg("-D")
            .arg(self.path("cluster"))
            .args(defaults.iter().chain(settings).flat_map(|setting| ["-c", setting]))
            .spawn()
            .unwrap();
        let server = Server { child, address, folder: self.0 };
        // The server listens before it accepts queries.
        let ready = postgres_bin().join("pg_isready");
        let target = ["-q".to_owned(), "-h127.0.0.1".to_owned(), format!("-p{}", address.port())];
        eventually("the server accepts connections", async || {
            Command::new(&ready).args(&target).status().unwrap().success()
        })
        .await;
        server
    }
}

/// A running server, which stops when it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Folder of the socket and of the files that were written for the server.
    pub folder: Folder,
}

impl Drop for Server {
    fn drop(&mut self) {
        program::signal(self.child.id(), "INT");
        let _ended = self.child.wait();
    }
}

/// Returns the folder of the PostgreSQL binaries.
pub fn postgres_bin() -> PathBuf {
    program::tool_folder("postgres_bin")
}

/// Returns a command that runs without root privileges, which Postgres requires.
fn unprivileged(program: PathBuf) -> Command {
    let mut command = Command::new("setpriv");
    let user = owner();
    let ids = [format!("--reuid={}", user.uid), format!("--regid={}", user.gid)];
    command.args(ids).arg("--clear-groups").arg(&program);
    let mut command = if geteuid().is_root() { command } else { Command::new(program) };
    command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Returns the account that Postgres runs as when the tests run as root.
fn owner() -> User {
    let named = |name| User::from_name(name).unwrap();
    named("postgres").or_else(|| named("nobody")).unwrap()
}
