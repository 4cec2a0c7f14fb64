//! The secrets and the roles that the compose file makes, on a real server: who owns the data is no superuser, and who
//! watches can call three functions.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use crate::compose::rules_of_sign_in;
use crate::files::root;
use crate::harness::eventually;
use crate::harness::program::{self, Folder, Program};
use crate::harness::server::{Cluster, Server, programs};

fn secrets(folder: &Path, users: &str) {
    let mut command = Command::new("sh");
    command.arg(root().join("compose/secrets")).arg(folder).env("EDGE_USERS", users);
    assert!(command.status().unwrap().success());
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap().trim_end().to_owned()
}

#[test]
fn secrets_are_made_once_and_each_sees_its_own() {
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
    for (watcher, unseen) in [("grafana", &before[1]), ("alloy", &before[1]), ("edge", &before[1])]
    {
        for entry in std::fs::read_dir(folder.0.join(watcher)).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains(unseen.as_str()), "{watcher} could be the owner");
        }
    }

    secrets(&folder.0, "ada:secret\nbob:hush");
    let after = names.map(|name| read(&folder.0, name));
    assert_eq!(after[..7], before[..7], "what is there stays");
    assert_eq!(after[7], "ada:secret\nbob:hush");
}

/// A server like that of the compose file, but for its address.
async fn server() -> Server {
    let cluster =
        Cluster::make(&["-U", "postgres", "--data-checksums", "--auth-host=scram-sha-256"]);
    cluster.write("pg_hba.conf", &rules_of_sign_in("10.231.47.0/28"), 0o644);
    let hba = format!("hba_file={}", cluster.path("pg_hba.conf").display());
    cluster.start(&[&hba]).await
}

/// From now on, whoever comes from there may only look.
async fn lookers_come_from(server: &Server, network: &str) {
    let folder = &server.folder.0;
    std::fs::write(folder.join("pg_hba.conf"), rules_of_sign_in(network)).unwrap();
    let (port, socket) = (server.address.port(), folder.display());
    let url = format!("postgres://postgres@localhost:{port}/postgres?host={socket}");
    let mut operator = PgConnection::connect(&url).await.unwrap();
    operator.execute("select pg_reload_conf()").await.unwrap();
    operator.close().await.unwrap();
}

#[tokio::test]
async fn the_roles_are_enough_for_the_program_and_for_who_watches() {
    let (secret, server) = (Folder::new(), server().await);
    secrets(&secret.0, "");
    let made = Command::new("sh")
        .arg(root().join("compose/database"))
        .env("PATH", format!("{}:{}", programs().display(), std::env::var("PATH").unwrap()))
        .env("SECRETS", secret.0.join("db"))
        .env("PGHOST", &server.folder.0)
        .env("PGPORT", server.address.port().to_string())
        .status();
    assert!(made.unwrap().success());
    let here = |name: &str| {
        read(&secret.0, name).replace("revwallet-db:5432", &server.address.to_string())
    };
    let (url, looker) = (here("api/database_url"), here("alloy/observer_url"));
    let file = secret.0.join("url");
    std::fs::write(&file, &url).unwrap();

    let setting = format!("--database-url-file={}", file.display());
    let ended = program::run(&["migrate", &setting, "--allow-unsafe-server"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let settings = [&setting, "--no-migrate", "--allow-unsafe-server", "--access=open"];
    let program = Program::start(&settings).await;
    let body = json!({ "owner": "test2", "initial_balance": "999.00", "currency": "EUR" });
    assert_eq!(program.public.post("/wallet", body).await.status, 201);
    assert_eq!(program.internal.get("/readyz").await.status, 200);

    // Elsewhere than from their own network nobody looks, and there nobody does anything else.
    assert!(PgConnection::connect(&looker).await.is_err());
    lookers_come_from(&server, "127.0.0.1/32").await;
    eventually("the owner is refused", async || PgConnection::connect(&url).await.is_err()).await;
    let mut db = PgConnection::connect(&looker).await.unwrap();
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
    lookers_come_from(&server, "10.231.47.0/28").await;
    assert!(program.stop().await.success());
}
