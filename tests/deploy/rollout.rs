//! Rolling update of the API: the edge must drop an address before the process behind it closes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::{bash, tools};

/// Shutdown delay: longer than the edge caches an address (5 s); in a cluster, DNS adds 30 s.
const DELAY: &str = "8s";

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test must be visible")]
fn an_update_fails_no_request_even_without_retries() {
    let programs = tools("source scripts/lib/edge.sh && edge_tools");
    let nginx = Path::new(&programs).join("nginx-next");
    if !nginx.exists() {
        // nginx before 1.27.3 resolves a name once only. The cluster of scripts/smoke-kind has a newer version.
        eprintln!("skipped: the newest nginx is not available");
        return;
    }
    let folder = Path::new("/tmp").join(format!("revwallet-rollout-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Five consecutive ports: API, API internal, DNS, edge, edge status.
    let port = 20_000 + u64::from(std::process::id()) % 2_000 * 5;

    let output = bash(&format!(
        "DELAY={DELAY} bash tests/deploy/rollout.sh '{}' '{}' '{}' {port}",
        folder.display(),
        env!("CARGO_BIN_EXE_revwallet"),
        nginx.display(),
    ));

    let output = output.unwrap_or_else(|error| panic!("{error}"));
    assert!(output.contains(" deposits were acknowledged, 0 failed; "), "{output}");
    assert!(output.contains("processes that responded: 6\n"), "{output}");
    std::fs::remove_dir_all(&folder).unwrap();
}
