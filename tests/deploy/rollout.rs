//! What an update of the API rests on: an edge that forgets an address before the process behind it closes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::{bash, tools};

/// Longer than the edge keeps an address (5 s); in a cluster, name servers add 30 s to it.
const DELAY: &str = "8s";

#[test]
#[expect(clippy::print_stderr, reason = "who runs the tests should know")]
fn an_update_loses_no_request_though_nobody_may_repeat_it() {
    let programs = tools("source scripts/lib/edge.sh && edge_tools");
    let nginx = Path::new(&programs).join("nginx-next");
    if !nginx.exists() {
        // Before 1.27.3 it asks for a name once. The cluster of scripts/smoke-kind has a newer one.
        eprintln!("not tried: there is no new nginx to be had here");
        return;
    }
    let folder = Path::new("/tmp").join(format!("revwallet-rollout-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Five in a row: of the API, its inside, names, the edge, its inside.
    let port = 20_000 + u64::from(std::process::id()) % 2_000 * 5;

    let said = bash(&format!(
        "DELAY={DELAY} bash tests/deploy/rollout.sh '{}' '{}' '{}' {port}",
        folder.display(),
        env!("CARGO_BIN_EXE_revwallet"),
        nginx.display(),
    ));

    let said = said.unwrap_or_else(|said| panic!("{said}"));
    assert!(said.contains(" deposits were acknowledged, 0 failed; "), "{said}");
    assert!(said.contains("processes that have answered: 6\n"), "{said}");
    std::fs::remove_dir_all(&folder).unwrap();
}
