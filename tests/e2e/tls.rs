//! Encrypted connections to the database: `sslmode` is honored on every connection.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use sqlx::Connection;

use crate::harness::program::{Program, command};
use crate::harness::server::{Cluster, Server};

/// Starts a server that accepts encrypted connections only.
async fn server() -> Server {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    let cluster = Cluster::init(&["-U", "revwallet", "--auth=trust"]);
    cluster.write("cluster/server.crt", &certificate.pem(), 0o644);
    cluster.write("cluster/server.key", &key.serialize_pem(), 0o600);
    cluster.write("authority.pem", &authority.pem(), 0o644);
    cluster.write("cluster/pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n", 0o644);
    cluster.start(&["ssl=on"]).await
}

fn url(server: &Server, host: &str, query: &str) -> String {
    let authority = server.folder.0.join("authority.pem").display().to_string();
    let (port, query) = (server.address.port(), query.replace("AUTHORITY", &authority));
    format!("--database-url=postgres://revwallet@{host}:{port}/postgres?{query}")
}

#[tokio::test]
async fn the_certificate_is_verified_as_far_as_sslmode_requires() {
    let server = server().await;
    let accepted = [
        ("127.0.0.1", "sslmode=require"),
        ("localhost", "sslmode=verify-full&sslrootcert=AUTHORITY"),
        // The certificate is for another name.
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=AUTHORITY"),
        ("127.0.0.1", "sslmode=prefer"),
    ];
    for (host, query) in accepted {
        let program =
            Program::start(&[&url(&server, host, query), "--access=open", "--allow-unsafe-server"])
                .await;
        let body = json!({ "owner": "x", "currency": "EUR", "initial_balance": 5 });
        let opened = program.public.post("/wallet", body).await;
        assert_eq!(opened.status, 201, "{query}: {}", opened.text);
        assert!(program.stop().await.success());
    }
    let refused = [
        ("127.0.0.1", "sslmode=disable"),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=AUTHORITY"),
        ("localhost", "sslmode=verify-full"),
        ("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem"),
    ];
    for (host, query) in refused {
        let output = command(&[
            "serve",
            &url(&server, host, query),
            "--access=open",
            "--allow-unsafe-server",
            "--listen=127.0.0.1:0",
            "--internal-listen=127.0.0.1:0",
        ])
        .output()
        .unwrap();
        assert_eq!(output.status.code(), Some(1), "{query}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr.lines().count(), 1, "more than one sentence: {stderr}");
    }
}

/// The pool and the writer use different drivers, which must agree.
#[tokio::test]
async fn every_connection_is_encrypted() {
    let server = server().await;
    let program = Program::start(&[
        &url(&server, "127.0.0.1", "sslmode=require"),
        "--access=open",
        "--allow-unsafe-server",
    ])
    .await;
    program.public.post("/wallet", json!({ "owner": "x", "currency": "EUR" })).await;

    let options: sqlx::postgres::PgConnectOptions = url(&server, "127.0.0.1", "sslmode=require")
        .strip_prefix("--database-url=")
        .unwrap()
        .parse()
        .unwrap();
    let mut db = sqlx::PgConnection::connect_with(&options).await.unwrap();
    let plain: i64 = sqlx::query_scalar("select count(*) from pg_stat_ssl s join pg_stat_activity a using (pid) where a.application_name like 'revwallet%' and not s.ssl").fetch_one(&mut db).await.unwrap();
    let ledger: i64 = sqlx::query_scalar("select count(*) from pg_stat_ssl s join pg_stat_activity a using (pid) where a.application_name = 'revwallet ledger' and s.ssl").fetch_one(&mut db).await.unwrap();

    assert_eq!((plain, ledger), (0, 1));
    assert!(program.stop().await.success());
}
