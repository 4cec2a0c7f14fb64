//! Files of a release: `scripts/release` with a small static program, and the compose file that it packs.

use std::path::PathBuf;

use serde_json::Value;

use crate::bash;
use crate::compose::parsed;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A folder for the files of a release, removed at the end of the test.
struct Release(PathBuf);

impl Release {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("revwallet-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Runs a bash command in the folder of the repository, with `$folder` set to this one.
    fn bash(&self, command: &str) -> Result<String, String> {
        bash(&format!("folder='{}' && {command}", self.0.display()))
    }

    /// Packs the release with a program that needs no library.
    fn pack(&self, into: &str) {
        self.bash(&format!(
            "echo 'fn main() {{ println!(\"static\") }}' >$folder/program.rs && \
             rustc -C target-feature=+crt-static -o $folder/program $folder/program.rs && \
             scripts/release --program $folder/program --into $folder/{into}"
        ))
        .unwrap();
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn a_release_has_the_program_and_a_compose_file_with_all_that_it_mounts() {
    let release = Release::new("release");
    release.pack("one");
    let program = release
        .bash(&format!(
            "cd $folder/one && tar xzf revwallet-{VERSION}-$(uname -m)-linux.tar.gz && \
             cd revwallet-{VERSION}-$(uname -m)-linux && ./revwallet && ls"
        ))
        .unwrap();
    assert_eq!(program, "static\nCHANGELOG.md\nLICENSE\nrevwallet\n");

    let compose = release.0.join(format!("one/revwallet-{VERSION}-compose"));
    release.bash(&format!("tar xzf {0}.tar.gz -C $folder/one", compose.display())).unwrap();
    let configuration = parsed(compose.join("docker-compose.yml").to_str().unwrap());
    let services = configuration["services"].as_object().unwrap();
    assert!(services.len() > 10, "the archive lacks services of the compose file");
    let mut mounts = 0;
    for (name, service) in services {
        assert!(service["build"].is_null(), "{name} is built, not pulled");
        assert!(service["image"].is_string(), "{name} has no image");
        for volume in service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str)
        {
            let source = volume.split(':').next().unwrap();
            if source.starts_with("./") {
                assert!(compose.join(source).exists(), "{name} mounts {source}");
                mounts += 1;
            }
        }
    }
    assert!(mounts > 8, "only {mounts} mounts were found");
    let image = services["revwallet_api"]["image"].as_str().unwrap();
    assert_eq!(image, format!("ghcr.io/revwallet/revwallet:${{REVWALLET_VERSION:-{VERSION}}}"));
}

#[test]
fn the_same_program_gives_the_same_archives() {
    let release = Release::new("release-twice");
    release.pack("one");
    release.pack("two");
    let compared =
        release.bash("diff --recursive $folder/one $folder/two && ls $folder/one | wc -l");
    assert_eq!(compared, Ok("2\n".to_owned()));
}

#[test]
fn a_program_that_needs_libraries_is_not_released() {
    let release = Release::new("release-dynamic");
    let error =
        release.bash("scripts/release --program $(command -v bash) --into $folder").unwrap_err();
    assert!(error.contains("is not static"), "{error}");
    let error = release.bash("scripts/release --program LICENSE --into $folder").unwrap_err();
    assert!(error.contains("is not a program of Linux"), "{error}");
}

#[test]
fn the_changelog_describes_the_version_and_only_its_tag_is_released() {
    let notes = bash("scripts/release --notes").unwrap();
    assert!(notes.trim_start().starts_with("- "), "{notes}");
    let error = bash("GITHUB_REF=refs/tags/v99.0.0 scripts/release --publish").unwrap_err();
    assert!(error.contains(&format!("v{VERSION}, is released, not refs/tags/v99.0.0")), "{error}");
}

#[test]
fn an_incomplete_release_is_not_published() {
    let release = Release::new("release-incomplete");
    release.pack("dist");
    // A cosign and a gh that would succeed: the missing platform must stop the script before them.
    let error = release
        .bash(&format!(
            "mkdir $folder/bin && printf '#!/bin/sh\\necho called >>%s/calls\\n' $folder >$folder/bin/cosign && \
             cp $folder/bin/cosign $folder/bin/gh && chmod +x $folder/bin/* && \
             PATH=$folder/bin:$PATH GITHUB_REPOSITORY=some/wallet GITHUB_REF=refs/tags/v{VERSION} \
             scripts/release --publish --into $folder/dist"
        ))
        .unwrap_err();
    assert!(error.contains("lacks the archive of a platform"), "{error}");
    assert!(!release.0.join("calls").exists());
    release
        .bash(&format!(
            "for platform in x86_64 aarch64; do \
               cp -n $folder/dist/revwallet-{VERSION}-$(uname -m)-linux.tar.gz $folder/dist/revwallet-{VERSION}-$platform-linux.tar.gz || true; \
             done; PATH=$folder/bin:$PATH GITHUB_REPOSITORY=some/wallet GITHUB_REF=refs/tags/v{VERSION} \
             scripts/release --publish --into $folder/dist && \
             cd $folder/dist && sha256sum --check --quiet SHA256SUMS && wc -l <SHA256SUMS"
        ))
        .map(|output| assert!(output.trim().ends_with('3'), "{output}"))
        .unwrap();
    // Signed, verified, released.
    assert_eq!(std::fs::read_to_string(release.0.join("calls")).unwrap().lines().count(), 3);
}
