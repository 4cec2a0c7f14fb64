//! The links of alerts, read from the rules of Prometheus and Loki.

use std::collections::BTreeSet;
use std::path::Path;

/// Returns the path of every `runbook_url`, after the public URL of the system.
pub fn runbook_paths() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for file in [
        "prometheus/rules/alerts.yml",
        "prometheus/rules/slos.yml",
        "loki/rules/fake/revwallet.yaml",
    ] {
        let rules = std::fs::read_to_string(root.join(file)).unwrap();
        for line in rules.lines().filter(|line| line.contains("runbook_url: ")) {
            let path = line.split("$externalURL }}").nth(1);
            let path = path.unwrap_or_else(|| panic!("{file}: not an absolute link: {line}"));
            found.insert(path.trim_end_matches(['"', '\'']).to_owned());
        }
    }
    found
}
