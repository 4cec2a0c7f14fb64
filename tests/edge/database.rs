//! Secrets and roles of the compose file on a real server: the owner of the data is not a superuser, and the observer
//! role may call three functions only.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use crate::compose::pg_hba;
use crate::files::root;
use crate::harness::eventually;
use crate::harness::program::{self, Folder, Program};
use crate::harness::server::{Cluster, Server, postgres_bin};

/// Runs `compose/secrets`, which creates missing secrets.
fn secrets(folder: &Path, users: &str) {
    let mut command = Command::new("sh");
    command.arg(root().join("compose/secrets")).arg(folder).env("EDGE_USERS", users);
    assert!(command.status().unwrap().success());
}

#[test]
fn nothing_starts_where_other_machines_would_reach_an_open_system() {
    let starts = |address: &str, access: &str, users: &str| {
        let folder = Folder::new();
        let mut command = Command::new("sh");
        command.arg(root().join("compose/secrets")).arg(&folder.0);
        command.envs([("EDGE_ADDRESS", address), ("EDGE_ACCESS", access), ("EDGE_USERS", users)]);
        let output = command.output().unwrap();
        let sentence = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), sentence.is_empty(), "{sentence}");
        assert_eq!(output.status.success(), folder.0.join("edge/edge_users").exists());
        output.status.success()
    };

    assert!(starts("127.0.0.1", "open", ""));
    assert!(starts("0.0.0.0", "closed", "ada:secret"));
    for (access, users) in [("open", "ada:secret"), ("closed", ""), ("closed", "admin:admin")] {
        for address in ["0.0.0.0", "10.0.0.1", "[::]"] {
            assert!(!starts(address, access, users), "{address} {access} {users}");
        }
    }
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap().trim_end().to_owned()
}

#[test]
fn secrets_are_created_once_and_each_service_sees_its_own() {
    let folder = Folder::new();
    secrets(&folder.0, "");
    let names = [
        "db/postgres_password",
        "db/revwallet_password",
        "db/observer_password",
        "api/database_url",
        "grafana/observer_password",
        "grafana/admin_password",
        "alloy/observer_url",
        "edge/edge_users",
    ];
    let before = names.map(|name| read(&folder.0, name));
    assert_eq!(before[7], "admin:admin");
    assert!(before[0].len() == 48 && before[0] != before[1] && before[1] != before[2]);
    assert_eq!(
        before[3],
        format!("postgres://revwallet:{}@revwallet-db:5432/revwallet", before[1])
    );
    assert_eq!(before[4], before[2]);
    assert!(before[6].starts_with(&format!("postgres://revwallet_observer:{}@", before[2])));
    for (service, hidden) in [("grafana", &before[1]), ("alloy", &before[1]), ("edge", &before[1])]
    {
        for entry in std::fs::read_dir(folder.0.join(service)).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains(hidden.as_str()), "{service} knows the password of the owner");
        }
    }

    secrets(&folder.0, "ada:secret\nbob:hush");
    let after = names.map(|name| read(&folder.0, name));
    assert_eq!(after[..7], before[..7], "existing secrets must not change");
    assert_eq!(after[7], "ada:secret\nbob:hush");
}

/// Starts a server with the settings of the compose file, except for its address.
async fn server() -> Server {
    let cluster =
        Cluster::init(&["-U", "postgres", "--data-checksums", "--auth-host=scram-sha-256"]);
    cluster.write("pg_hba.conf", &pg_hba("10.231.47.0/28"), 0o644);
    let hba = format!("hba_file={}", cluster.path("pg_hba.conf").display());
    cluster.start(&[&hba]).await
}

/// Makes a network the one from which only the observer role may connect.
async fn set_observer_network(server: &Server, network: &str) {
    let folder = &server.folder.0;
    std::fs::write(folder.join("pg_hba.conf"), pg_hba(network)).unwrap();
    let (port, socket) = (server.address.port(), folder.display());
    let url = format!("postgres://postgres@localhost:{port}/postgres?host={socket}");
    let mut operator = PgConnection::connect(&url).await.unwrap();
    operator.execute("select pg_reload_conf()").await.unwrap();
    operator.close().await.unwrap();
}

#[tokio::test]
async fn the_roles_suffice_for_the_program_and_the_observer() {
    let (secret, server) = (Folder::new(), server().await);
    secrets(&secret.0, "");
    let status = Command::new("sh")
        .arg(root().join("compose/database"))
        .env("PATH", format!("{}:{}", postgres_bin().display(), std::env::var("PATH").unwrap()))
        .env("SECRETS", secret.0.join("db"))
        .env("PGHOST", &server.folder.0)
        .env("PGPORT", server.address.port().to_string())
        .status();
    assert!(status.unwrap().success());
    let url_of = |name: &str| {
        read(&secret.0, name).replace("revwallet-db:5432", &server.address.to_string())
    };
    let (url, observer_url) = (url_of("api/database_url"), url_of("alloy/observer_url"));
    let file = secret.0.join("url");
    std::fs::write(&file, &url).unwrap();

    let setting = format!("--database-url-file={}", file.display());
    let exit = program::run(&["migrate", &setting, "--allow-unsafe-server"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let settings = [&setting, "--no-migrate", "--allow-unsafe-server", "--access=open"];
    let program = Program::start(&settings).await;
    let body = json!({ "owner": "test2", "initial_balance": "999.00", "currency": "EUR" });
    assert_eq!(program.public.post("/wallet", body).await.status, 201);
    assert_eq!(program.internal.get("/readyz").await.status, 200);

    // The observer connects from its own network only, and no other role connects from there.
    assert!(PgConnection::connect(&observer_url).await.is_err());
    set_observer_network(&server, "127.0.0.1/32").await;
    eventually("the owner is refused", async || PgConnection::connect(&url).await.is_err()).await;
    let mut db = PgConnection::connect(&observer_url).await.unwrap();
    let rows =
        sqlx::query("select * from observer.of_wallet('1')").fetch_all(&mut db).await.unwrap();
    assert!(!rows.is_empty());
    sqlx::query("select * from pg_stat_activity").fetch_all(&mut db).await.unwrap();
    for forbidden in [
        "select * from ledger.transfer",
        "select * from app_user",
        "insert into ledger.book (book, name) values (2, 'mine')",
        "set role revwallet",
        "alter role revwallet_observer superuser",
    ] {
        assert!(
            sqlx::query(sqlx::AssertSqlSafe(forbidden)).execute(&mut db).await.is_err(),
            "{forbidden}"
        );
    }
    db.close().await.unwrap();
    set_observer_network(&server, "10.231.47.0/28").await;
    assert!(program.stop().await.success());
}
