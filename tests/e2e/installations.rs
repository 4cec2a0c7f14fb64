//! Several installations in one cluster, whose roles they share.

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::harness::program::{Program, command};
use crate::harness::server::{Cluster, Server};

async fn server() -> Server {
    Cluster::init(&["-U", "administrator", "--auth=trust"]).start(&[]).await
}

async fn administrator(server: &Server) -> PgConnection {
    connect(server, "administrator", "postgres").await
}

fn url(server: &Server, user: &str, database: &str) -> String {
    format!("postgres://{user}@127.0.0.1:{}/{database}", server.address.port())
}

async fn connect(server: &Server, user: &str, database: &str) -> PgConnection {
    PgConnection::connect(&url(server, user, database)).await.unwrap()
}

/// Creates a user with these attributes, and a database that the user owns.
async fn create_owner(server: &Server, name: &str, attributes: &str) {
    let mut db = administrator(server).await;
    db.execute(AssertSqlSafe(format!("create role {name} login {attributes}"))).await.unwrap();
    db.execute(AssertSqlSafe(format!("create database {name} owner {name}"))).await.unwrap();
}

fn settings(server: &Server, name: &str) -> [String; 3] {
    let database = format!("--database-url={}", url(server, name, name));
    [database, "--access=open".to_owned(), "--allow-unsafe-server".to_owned()]
}

async fn start(server: &Server, name: &str) -> Program {
    let settings = settings(server, name);
    Program::start(&settings.each_ref().map(String::as_str)).await
}

const GRANT: &str = "as an administrator, run: grant revwallet_app to";

#[tokio::test]
async fn each_owner_migrates_a_database_of_its_own() {
    let server = server().await;
    for (name, attributes, lacks_role) in [
        ("first", "createrole", false),
        ("second", "createrole", sees_roles_of_others(&server).await),
        ("third", "nocreaterole", true),
    ] {
        create_owner(&server, name, attributes).await;

        let [database, _, unsafe_server] = settings(&server, name);
        let migrated = command(&["migrate", &database, &unsafe_server]).output().unwrap();
        let log =
            String::from_utf8_lossy(&[migrated.stdout, migrated.stderr].concat()).into_owned();
        assert!(migrated.status.success(), "{name}: {log}");
        assert_eq!(log.contains(GRANT), lacks_role, "{name}: {log}");

        let program = start(&server, name).await;
        let body = json!({ "owner": "x", "currency": "EUR", "initial_balance": 5 });
        let opened = program.public.post("/wallet", body).await;
        assert_eq!(opened.status, 201, "{name}: {}", opened.text);
        assert!(program.stop().await.success());
        let mut owner = connect(&server, name, name).await;
        let refused = owner.execute("delete from ledger.transfer").await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
}

/// From PostgreSQL 16 on, a user who may create roles manages only those that it created.
async fn sees_roles_of_others(server: &Server) -> bool {
    let version = "select current_setting('server_version_num')::int";
    let version: i32 =
        sqlx::query_scalar(version).fetch_one(&mut administrator(server).await).await.unwrap();
    version >= 160_000
}

#[tokio::test]
async fn a_role_without_its_limits_is_refused_with_the_statement_that_is_missing() {
    let server = server().await;
    administrator(&server).await.execute("create role revwallet_observer").await.unwrap();
    create_owner(&server, "owner", "nocreaterole").await;
    let [database, _, unsafe_server] = settings(&server, "owner");
    let arguments = ["migrate", database.as_str(), unsafe_server.as_str()];

    let output = command(&arguments).output().unwrap();

    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let statements = stderr.split('`').nth(1).unwrap_or_else(|| panic!("{stderr}"));
    for statement in statements.split("; ") {
        administrator(&server).await.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    }
    assert!(command(&arguments).status().unwrap().success());
}

#[tokio::test]
async fn a_migration_that_was_applied_before_its_correction_is_accepted() {
    let server = server().await;
    create_owner(&server, "owner", "createrole").await;
    assert!(start(&server, "owner").await.stop().await.success());
    let mut db = connect(&server, "owner", "owner").await;
    let former = "update _sqlx_migrations set checksum = decode('174942f03cb3b5ee78ba0bc24bd472241dff744490e8f1177a27ec4d35a94f481172a1b459a1937b16112d706e9f40b2', 'hex') where version = 9";
    db.execute(former).await.unwrap();

    assert!(start(&server, "owner").await.stop().await.success());
}
