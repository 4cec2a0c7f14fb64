//! Database scripts of the demo manifests, run against a real server.

use std::path::Path;

use serde_json::Value;

use crate::render::{Manifests, list, overlay, text};
use crate::{bash, root};

/// Returns the shell script of a container.
fn container_script(manifests: &Manifests, container: &str) -> String {
    let pods = manifests.pods();
    let mut containers = pods.iter().flat_map(crate::render::Pod::containers);
    let found = containers.find(|each| each["name"] == container).unwrap();
    text(list(&found["command"])[2]).to_owned()
}

/// Returns a value of a ConfigMap or Secret.
fn data<'a>(manifests: &'a Manifests, kind: &'a str, prefix: &str, key: &str) -> &'a str {
    let mut found = manifests.of_kind(kind).filter(|resource| {
        crate::render::name(resource).starts_with(prefix) && resource["data"][key] != Value::Null
    });
    text(&found.next().unwrap_or_else(|| panic!("no {key} in {kind} {prefix}"))["data"][key])
}

#[test]
fn database_scripts_of_the_pods_work_as_intended() {
    let manifests = overlay("demo");
    let folder = temporary_folder();
    let path = folder.display().to_string();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let localized = |script: &str| {
        script
            .replace("/run/secrets", &format!("{path}/secrets"))
            .replace("/backups", &format!("{path}/backups"))
            .replace("revwallet-db:5432", &format!("127.0.0.1:{port}"))
    };
    let write = |name: &str, content: &str| std::fs::write(folder.join(name), content).unwrap();
    write("pg_hba.conf", data(&manifests, "ConfigMap", "postgres-access", "pg_hba.conf"));
    write("init", data(&manifests, "ConfigMap", "postgres-init", "database.sh"));
    write("job", &localized(&container_script(&manifests, "observer")));
    write("backup", &localized(&container_script(&manifests, "backup")));
    std::fs::create_dir(folder.join("secrets")).unwrap();
    for file in ["revwallet-db", "revwallet-database", "revwallet-observer"] {
        let lines = crate::read(&format!("kind/overlays/demo/secrets/{file}.env"));
        for (key, value) in lines.lines().filter_map(|line| line.split_once('=')) {
            write(&format!("secrets/{key}"), &localized(value));
        }
    }

    let program = env!("CARGO_BIN_EXE_revwallet");
    let output = bash(&format!("PORT={port} bash tests/deploy/database.sh '{path}' '{program}'"));
    std::fs::remove_dir_all(&folder).unwrap();

    let expected = "faults in pg_hba.conf: 0\n\
        observer: 0\n\
        observer: permission denied for schema ledger\n\
        superuser: no pg_hba.conf entry for host \"127.0.0.1\", user \"postgres\", database \"revwallet\", no encryption\n\
        backups: 7, the oldest revwallet-20260103T000000Z.dump\n\
        books in the newest: 1\n\
        left over: 0\n";
    assert!(output.as_deref().is_ok_and(|text| text.starts_with(expected)), "{output:?}");
}

/// Creates a folder that every account can enter, because the server does not run as root.
fn temporary_folder() -> std::path::PathBuf {
    let folder = Path::new("/tmp").join(format!("revwallet-deploy-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    assert!(root().exists());
    folder
}
