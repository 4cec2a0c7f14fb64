//! Backup of an external PostgreSQL server with passwords, a superuser, and an owner without superuser rights, as in Compose.

use std::path::PathBuf;
use std::process::Command;

use super::{ScriptOutput, Site, deposit, wallet};
use crate::harness::check::SECRET_MARKER;
use crate::harness::{Program, free_address};

/// A password with the marker of secrets and with characters that must be escaped in a URL.
const PASSWORD: &str = "test-secret:p@ss/word";
const ESCAPED: &str = "test-secret%3Ap%40ss%2Fword";

struct Server {
    site: Site,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let server = Self { site: Site::new(), port: free_address().port() };
        let folder = server.site.folder.0.display();
        let port = server.port;
        shell(&format!(
            r#"
            chmod 755 {folder}; mkdir {folder}/server; printf '%s' '{PASSWORD}' >{folder}/password
            chmod 644 {folder}/password
            [ "$(id -u)" != 0 ] || chown "$(unprivileged id -u)" {folder}/server
            unprivileged "$bin/initdb" -D {folder}/server/data -U postgres --pwfile={folder}/password \
              --auth=scram-sha-256 --no-sync >/dev/null
            echo 'port = {port}' | unprivileged tee -a {folder}/server/data/postgresql.conf >/dev/null
            echo "unix_socket_directories = ''" | unprivileged tee -a {folder}/server/data/postgresql.conf >/dev/null
            unprivileged "$bin/pg_ctl" -D {folder}/server/data -l {folder}/server/log -w -s start
            "$bin/psql" -qX -d '{}' -v ON_ERROR_STOP=1 <<SQL
            create role revwallet login createrole password '{PASSWORD}';
            create database revwallet owner revwallet;
SQL
            "#,
            server.url("postgres", "postgres")
        ));
        server
    }

    fn data(&self) -> PathBuf {
        self.site.folder.0.join("server/data")
    }

    fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}:{ESCAPED}@127.0.0.1:{}/{database}", self.port)
    }

    fn restart(&self) {
        let data = self.data().display().to_string();
        shell(&format!(
            "unprivileged \"$bin/pg_ctl\" -D {data} -l {data}/../log -w -s -m fast restart"
        ));
    }

    /// Runs a script against this server.
    fn script(&self, name: &str, user: &str) -> ScriptOutput {
        let output = Command::new(format!("scripts/{name}"))
            .arg(format!("--into={}", self.site.backups().display()))
            .env("DATABASE_URL", self.url(user, "revwallet"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains(SECRET_MARKER), "the output contains a password: {text}");
        ScriptOutput { succeeded: output.status.success(), text }
    }
}

/// Runs a shell script with the functions of `scripts/lib/setup.sh` and the PostgreSQL binaries in `$bin`.
fn shell(commands: &str) {
    let script = format!("source scripts/lib/setup.sh && bin=$(postgres_bin) && {{ {commands}\n}}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data().display().to_string();
        shell(&format!("unprivileged \"$bin/pg_ctl\" -D {data} -w -s -m immediate stop || true"));
    }
}

#[tokio::test]
async fn an_external_server_with_passwords_is_backed_up_and_restored() {
    let server = Server::start();
    let url = format!("--database-url={}", server.url("revwallet", "revwallet"));
    let program = Program::start(&[&url, "--access=open", "--password-memory=512"]).await;
    let id = wallet(&program.public).await;
    let refused = server.script("archive", "revwallet");
    assert!(!refused.succeeded && refused.text.contains("use a superuser"), "{}", refused.text);
    let refused = server.script("backup", "revwallet");
    assert!(
        !refused.succeeded && refused.text.contains("needs the replication privilege"),
        "{}",
        refused.text
    );
    let archive = server.script("archive", "postgres");
    assert!(archive.succeeded, "{}", archive.text);
    server.restart();

    let backup = server.script("backup", "postgres");

    assert!(backup.succeeded && !backup.text.contains("not archived"), "{}", backup.text);
    crate::harness::eventually("the program has reconnected", async || {
        program.public.try_status("/wallet").await == Some(200)
    })
    .await;
    deposit(&program.public, &id, "a").await;
    assert!(program.stop().await.success());
    server.restart();
    // The owner, who is not a superuser, prepares the restored database.
    let (_, restored) = server.site.restore("new", &[]);
    assert!(restored.succeeded && restored.text.contains("no faults found"), "{}", restored.text);
    assert!(restored.text.contains("2 transfers in"), "{}", restored.text);
}
