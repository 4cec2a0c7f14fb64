//! Finds the PostgreSQL server binaries on this machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use tokio::process::Command;
use tokio::time::timeout;

use super::environment;
use super::os_user::OsUser;

/// Oldest major version of PostgreSQL that is supported.
const MAJOR_MIN: u32 = 15;

/// Longest time that a binary may take to print its version. Some binaries are version manager scripts that first
/// download the real binary.
const VERSION_WAIT_MAX: Duration = Duration::from_secs(10);

/// A folder with `initdb` and `postgres`, and their version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub folder: PathBuf,
    pub major: u32,
    pub minor: u32,
}

/// Returns every supported installation of PostgreSQL on this machine.
pub async fn installed() -> anyhow::Result<Vec<Binaries>> {
    let mut found = search(&OsUser::for_new_cluster()?).await;
    found.retain(|binaries| MAJOR_MIN <= binaries.major);
    Ok(found)
}

/// Finds the binaries to run the cluster with: those in `folder`, or the newest suitable binaries on this machine if
/// `folder` is `None`.
pub(super) async fn find(
    folder: Option<&Path>,
    cluster_major: Option<u32>,
    os_user: &OsUser,
) -> anyhow::Result<Binaries> {
    let Some(folder) = folder else {
        return choose(search(os_user).await, cluster_major);
    };
    let Some(binaries) = inspect(folder, os_user).await else {
        bail!(
            "there is no working `postgres` and `initdb` in {}: set REVWALLET_POSTGRES_BIN to the folder that contains them",
            folder.display()
        );
    };
    choose(vec![binaries], cluster_major)
}

/// Chooses the newest binaries for a new cluster. An existing cluster requires the major version that created it.
fn choose(mut found: Vec<Binaries>, cluster_major: Option<u32>) -> anyhow::Result<Binaries> {
    // The sort is stable, so among equal versions the binaries that were found first win.
    found.sort_by_key(|binaries| std::cmp::Reverse((binaries.major, binaries.minor)));
    let names: Vec<_> = found
        .iter()
        .map(|binaries| format!("{} in {}", binaries.major, binaries.folder.display()))
        .collect();
    let names = names.join(", ");
    let best = found.into_iter().find(|binaries| {
        MAJOR_MIN <= binaries.major && cluster_major.is_none_or(|major| major == binaries.major)
    });
    match (best, cluster_major) {
        (Some(best), _) => Ok(best),
        (None, _) if names.is_empty() => bail!(
            "no PostgreSQL found: install it (Debian: apt-get install postgresql; macOS: brew install postgresql@17), or set REVWALLET_POSTGRES_BIN to the folder that contains its `postgres` and `initdb`, or DATABASE_URL to a server of yours"
        ),
        (None, Some(major)) if MAJOR_MIN <= major => bail!(
            "the data directory was created by PostgreSQL {major} and there is only {names}: install PostgreSQL {major}, or choose another folder with --data-dir"
        ),
        (None, _) => bail!(
            "PostgreSQL {MAJOR_MIN} or newer is needed and there is only {names}: install a newer one, or set REVWALLET_POSTGRES_BIN to its folder, or DATABASE_URL to a server of yours"
        ),
    }
}

/// Searches the usual folders for PostgreSQL, in the order of preference.
async fn search(os_user: &OsUser) -> Vec<Binaries> {
    let mut folders = environment::path();
    folders.extend(usual_folders());
    folders.extend(pg_config().await);
    let mut found: Vec<Binaries> = Vec::new();
    let mut seen = Vec::new();
    for folder in folders {
        let Some(folder) = real_folder(&folder).filter(|folder| !seen.contains(folder)) else {
            continue;
        };
        seen.push(folder.clone());
        found.extend(inspect(&folder, os_user).await);
    }
    found
}

/// Returns the folders into which Debian, Red Hat, Homebrew (on both kinds of Mac) and Postgres.app install PostgreSQL.
fn usual_folders() -> Vec<PathBuf> {
    let places = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
        ("/Applications/Postgres.app/Contents/Versions", ""),
    ];
    let mut folders: Vec<_> =
        places.into_iter().flat_map(|(parent, prefix)| children(parent, prefix)).collect();
    folders.push("/usr/local/pgsql/bin".into());
    folders
}

fn children(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join("bin"))
        .collect()
}

async fn pg_config() -> Option<PathBuf> {
    let mut command = Command::new("pg_config");
    let output = command.arg("--bindir").kill_on_drop(true).output();
    let output = timeout(VERSION_WAIT_MAX, output).await.ok()?.ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// Returns the folder that contains the real binaries, because the `postgres` in a folder such as `/usr/local/bin` is
/// often only a symbolic link.
fn real_folder(folder: &Path) -> Option<PathBuf> {
    let real = folder.join("postgres").canonicalize().ok()?.parent()?.to_owned();
    [real, folder.to_owned()].into_iter().find(|folder| folder.join("initdb").exists())
}

/// Runs `postgres --version` in a folder. Returns `None` if the folder has no working binaries.
async fn inspect(folder: &Path, os_user: &OsUser) -> Option<Binaries> {
    let folder = real_folder(folder)?;
    let mut command = os_user.command(&folder.join("postgres"));
    let output = command.arg(OsStr::new("--version")).kill_on_drop(true).output();
    let output = timeout(VERSION_WAIT_MAX, output).await.ok()?.ok()?;
    let (major, minor) = parse_version(&String::from_utf8_lossy(&output.stdout))?;
    Some(Binaries { folder, major, minor })
}

/// Parses the output of `postgres --version`, such as `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`. The
/// version number of a beta release looks like `18beta1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.split("(PostgreSQL)").nth(1)?.split_whitespace().next()?;
    let mut numbers = version.split(|letter: char| !letter.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = if version.contains('.') { numbers.next()?.parse().ok()? } else { 0 };
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(major: u32, minor: u32) -> Binaries {
        Binaries { folder: format!("/pg/{major}.{minor}").into(), major, minor }
    }

    fn error_message(found: Vec<Binaries>, cluster_major: Option<u32>) -> String {
        choose(found, cluster_major).expect_err("no version fits").to_string()
    }

    #[test]
    fn versions_of_every_distribution_are_parsed() {
        assert_eq!(
            parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some((15, 18))
        );
        assert_eq!(parse_version("postgres (PostgreSQL) 17.2 (Homebrew)"), Some((17, 2)));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1"), Some((19, 0)));
        assert_eq!(parse_version("bash: postgres: not found"), None);
    }

    #[test]
    fn a_new_cluster_gets_the_newest_version() {
        let found = vec![binaries(15, 3), binaries(17, 1), binaries(17, 2), binaries(14, 9)];

        assert_eq!(choose(found, None).expect("three are supported"), binaries(17, 2));
    }

    #[test]
    fn an_existing_cluster_gets_the_version_that_created_it() {
        assert_eq!(
            choose(vec![binaries(17, 1), binaries(15, 3)], Some(15))
                .expect("version 15 is present"),
            binaries(15, 3)
        );
        assert!(
            error_message(vec![binaries(17, 1)], Some(15))
                .contains("created by PostgreSQL 15 and there is only 17 in /pg/17.1")
        );
    }

    #[test]
    fn without_binaries_the_error_says_what_to_install() {
        let message = error_message(vec![], None);

        for word in
            ["apt-get install postgresql", "brew install", "REVWALLET_POSTGRES_BIN", "DATABASE_URL"]
        {
            assert!(message.contains(word), "{message}");
        }
        assert!(
            error_message(vec![binaries(14, 9)], None)
                .contains("15 or newer is needed and there is only 14")
        );
    }
}
