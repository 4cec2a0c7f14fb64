//! The lines that pods of the demo say to the database, said to a real one.

use std::path::Path;

use serde_json::Value;

use crate::render::{Manifests, list, overlay, text};
use crate::{bash, root};

/// The shell line of a container of that name.
fn line(manifests: &Manifests, container: &str) -> String {
    let pods = manifests.pods();
    let mut containers = pods.iter().flat_map(crate::render::Pod::containers);
    let found = containers.find(|each| each["name"] == container).unwrap();
    text(list(&found["command"])[2]).to_owned()
}

fn data<'a>(manifests: &'a Manifests, kind: &'a str, prefix: &str, key: &str) -> &'a str {
    let mut found = manifests.of_kind(kind).filter(|resource| {
        crate::render::name(resource).starts_with(prefix) && resource["data"][key] != Value::Null
    });
    text(&found.next().unwrap_or_else(|| panic!("no {key} in {kind} {prefix}"))["data"][key])
}

#[test]
fn what_pods_say_to_the_database_has_the_effect_it_should() {
    let manifests = overlay("demo");
    let folder = tempfolder();
    let place = folder.display().to_string();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let here = |said: &str| {
        said.replace("/run/secrets", &format!("{place}/secrets"))
            .replace("/backups", &format!("{place}/backups"))
            .replace("revwallet-db:5432", &format!("127.0.0.1:{port}"))
    };
    let write = |name: &str, content: &str| std::fs::write(folder.join(name), content).unwrap();
    write("pg_hba.conf", data(&manifests, "ConfigMap", "postgres-access", "pg_hba.conf"));
    write("init", data(&manifests, "ConfigMap", "postgres-init", "database.sh"));
    write("job", &here(&line(&manifests, "observer")));
    write("backup", &here(&line(&manifests, "backup")));
    std::fs::create_dir(folder.join("secrets")).unwrap();
    for file in ["revwallet-db", "revwallet-database", "revwallet-observer"] {
        let lines = crate::read(&format!("kind/overlays/demo/secrets/{file}.env"));
        for (key, value) in lines.lines().filter_map(|line| line.split_once('=')) {
            write(&format!("secrets/{key}"), &here(value));
        }
    }

    let program = env!("CARGO_BIN_EXE_revwallet");
    let said = bash(&format!("PORT={port} bash tests/deploy/database.sh '{place}' '{program}'"));
    std::fs::remove_dir_all(&folder).unwrap();

    let expected = "faults in pg_hba.conf: 0\n\
        observer: 0\n\
        observer: permission denied for schema ledger\n\
        superuser: no pg_hba.conf entry for host \"127.0.0.1\", user \"postgres\", database \"revwallet\", no encryption\n\
        backups: 7, the oldest revwallet-20260103T000000Z.dump\n\
        books in the newest: 1\n\
        left over: 0\n";
    assert!(said.as_deref().is_ok_and(|said| said.starts_with(expected)), "{said:?}");
}

/// A folder that everybody may enter, as the server is not run by root.
fn tempfolder() -> std::path::PathBuf {
    let folder = Path::new("/tmp").join(format!("revwallet-deploy-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    assert!(root().exists());
    folder
}
