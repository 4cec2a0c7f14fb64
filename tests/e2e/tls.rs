//! A database that is reached over the network, encrypted: as much trust as `sslmode` asks for, on every connection.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use sqlx::Connection;

use crate::harness::program::{Folder, Program, command};
use crate::harness::{eventually, free_address};

/// A server that takes encrypted connections only.
struct Server {
    child: Child,
    address: SocketAddr,
    folder: Folder,
}

impl Drop for Server {
    fn drop(&mut self) {
        crate::harness::program::signal(self.child.id(), "QUIT");
        let _ended = self.child.wait();
    }
}

/// The folder of the server's programs, where those of this run are.
fn programs() -> PathBuf {
    let said = Command::new("bash")
        .args(["-c", "source scripts/lib/setup.sh && postgres_bin"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    PathBuf::from(String::from_utf8(said.stdout).unwrap().trim())
}

/// Postgres does not run as root.
fn unprivileged(program: PathBuf) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let user = owner();
    let mut command = Command::new("setpriv");
    command
        .args([
            format!("--reuid={}", user.uid),
            format!("--regid={}", user.gid),
            "--clear-groups".to_owned(),
        ])
        .arg(program);
    command
}

fn owner() -> nix::unistd::User {
    let named = |name| nix::unistd::User::from_name(name).unwrap();
    named("postgres").or_else(|| named("nobody")).unwrap()
}

impl Server {
    async fn start() -> Self {
        let folder = Folder::new();
        let (programs, address) = (programs(), free_address());
        let ours = |path: &std::path::Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            if nix::unistd::geteuid().is_root() {
                let owner = owner();
                chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
            }
        };
        ours(&folder.0, 0o755);
        let cluster = folder.0.join("cluster");
        let made = unprivileged(programs.join("initdb"))
            .args(["-U", "revwallet", "--auth=trust", "--no-sync", "-D"])
            .arg(&cluster)
            .current_dir("/")
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        for (name, text) in [
            ("cluster/server.crt", certificate.pem()),
            ("cluster/server.key", key.serialize_pem()),
            ("authority.pem", authority.pem()),
            ("cluster/pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n".to_owned()),
        ] {
            let path = folder.0.join(name);
            std::fs::write(&path, text).unwrap();
            ours(&path, if name.ends_with("key") { 0o600 } else { 0o644 });
        }
        let child = unprivileged(programs.join("postgres"))
            .arg("-D")
            .arg(&cluster)
            .args([
                "-c",
                "ssl=on",
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
                "-c",
                "fsync=off",
            ])
            .args(["-c", &format!("port={}", address.port())])
            .current_dir("/")
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, address, folder };
        eventually("the server listens", async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        server
    }

    fn url(&self, host: &str, rest: &str) -> String {
        let rest =
            rest.replace("AUTHORITY", &self.folder.0.join("authority.pem").display().to_string());
        format!(
            "--database-url=postgres://revwallet@{host}:{}/postgres?{rest}",
            self.address.port()
        )
    }
}

#[tokio::test]
async fn an_encrypted_server_is_trusted_as_much_as_was_asked_for() {
    let server = Server::start().await;
    let accepted = [
        ("127.0.0.1", "sslmode=require"),
        ("localhost", "sslmode=verify-full&sslrootcert=AUTHORITY"),
        // In another name than that of its certificate.
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=AUTHORITY"),
        ("127.0.0.1", "sslmode=prefer"),
    ];
    for (host, rest) in accepted {
        let program =
            Program::start(&[&server.url(host, rest), "--access=open", "--allow-unsafe-server"])
                .await;
        let body = json!({ "owner": "x", "currency": "EUR", "initial_balance": 5 });
        let opened = program.public.post("/wallet", body).await;
        assert_eq!(opened.status, 201, "{rest}: {}", opened.text);
        assert!(program.stop().await.success());
    }
    let refused = [
        ("127.0.0.1", "sslmode=disable"),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=AUTHORITY"),
        ("localhost", "sslmode=verify-full"),
        ("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem"),
    ];
    for (host, rest) in refused {
        let output = command(&[
            "serve",
            &server.url(host, rest),
            "--access=open",
            "--allow-unsafe-server",
            "--listen=127.0.0.1:0",
            "--internal-listen=127.0.0.1:0",
        ])
        .output()
        .unwrap();
        assert_eq!(output.status.code(), Some(1), "{rest}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    }
}

/// The pool and the writer would otherwise be two answers to one question.
#[tokio::test]
async fn every_connection_is_encrypted() {
    let server = Server::start().await;
    let program = Program::start(&[
        &server.url("127.0.0.1", "sslmode=require"),
        "--access=open",
        "--allow-unsafe-server",
    ])
    .await;
    program.public.post("/wallet", json!({ "owner": "x", "currency": "EUR" })).await;

    let url: sqlx::postgres::PgConnectOptions = server
        .url("127.0.0.1", "sslmode=require")
        .strip_prefix("--database-url=")
        .unwrap()
        .parse()
        .unwrap();
    let mut db = sqlx::PgConnection::connect_with(&url).await.unwrap();
    let plain: i64 = sqlx::query_scalar("select count(*) from pg_stat_ssl s join pg_stat_activity a using (pid) where a.application_name like 'revwallet%' and not s.ssl").fetch_one(&mut db).await.unwrap();
    let ledger: i64 = sqlx::query_scalar("select count(*) from pg_stat_ssl s join pg_stat_activity a using (pid) where a.application_name = 'revwallet ledger' and s.ssl").fetch_one(&mut db).await.unwrap();

    assert_eq!((plain, ledger), (0, 1));
    assert!(program.stop().await.success());
}
