//! Location of the Postgres cluster: in the data directory, or elsewhere if Postgres cannot use the data directory.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use nix::unistd::geteuid;
use sha2::{Digest, Sha256};

use super::environment;
use super::log::Log;
use super::os_user::OsUser;

/// Longest path of a cluster, in bytes. Postgres appends file names to the path and truncates the result at 1023 bytes.
const CLUSTER_PATH_MAX: usize = 900;

/// Name of the cluster's folder. If the cluster is outside the data directory, a link in the data directory has this
/// name.
const CLUSTER: &str = "postgres";

/// Paths of a private Postgres, and the user that runs it.
#[derive(Debug)]
pub(super) struct DataDir {
    /// The data directory that the settings name.
    pub path: PathBuf,
    /// Parent folder of the cluster and of its lock file: the data directory, or a folder elsewhere.
    pub home: PathBuf,
    pub cluster: PathBuf,
    pub os_user: OsUser,
}

impl DataDir {
    /// Finds the cluster of a data directory, or chooses the location of a new cluster. An existing cluster is never
    /// moved.
    pub(super) async fn find(data_dir: &Path) -> anyhow::Result<Self> {
        let data_dir = create(data_dir)?;
        let inside = data_dir.join(CLUSTER);
        if let Some(cluster) = find_cluster(&inside)? {
            if CLUSTER_PATH_MAX < cluster.as_os_str().len() {
                bail!(
                    "the path is too long for Postgres, move the data directory to a shorter path: {}",
                    data_dir.display()
                );
            }
            let home = cluster.parent().context("a cluster cannot be the root folder")?.to_owned();
            let os_user = OsUser::owner_of(&cluster)?;
            return Ok(Self { path: data_dir, home, cluster, os_user });
        }
        let os_user = OsUser::for_new_cluster()?;
        let fits =
            inside.as_os_str().len() <= CLUSTER_PATH_MAX && os_user.can_enter(&data_dir).await?;
        let home = if fits { data_dir.clone() } else { create_elsewhere(&data_dir)? };
        let cluster = home.join(CLUSTER);
        let os_user = match find_cluster(&cluster)? {
            Some(cluster) => OsUser::owner_of(&cluster)?,
            None => os_user,
        };
        Ok(Self { path: data_dir, home, cluster, os_user })
    }

    /// Whether a data directory contains a cluster or a link to a cluster.
    pub(super) fn has_cluster(data_dir: &Path) -> anyhow::Result<bool> {
        Ok(find_cluster(&data_dir.join(CLUSTER))?.is_some())
    }

    /// Returns sixteen hexadecimal digits that identify this cluster. Names contain them instead of the path of the
    /// cluster, which would make the names too long.
    pub(super) fn hash(&self) -> String {
        hash(&self.home)
    }

    /// Returns the name that Postgres puts into the title of each of its processes.
    pub(super) fn cluster_name(&self) -> String {
        format!("revwallet-{}", self.hash())
    }

    pub(super) fn log(&self) -> Log {
        Log::new(self.path.join("postgres.log"))
    }

    /// If the cluster is outside the data directory, creates a link to the cluster in the data directory.
    pub(super) fn link(&self) -> anyhow::Result<()> {
        let link = self.path.join(CLUSTER);
        if link == self.cluster || link.is_symlink() {
            return Ok(());
        }
        std::os::unix::fs::symlink(&self.cluster, &link)
            .with_context(|| format!("cannot create {}", link.display()))
    }
}

fn create(data_dir: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(data_dir).and_then(|()| data_dir.canonicalize()).map_err(|error| {
        anyhow!(
            "the data directory {} cannot be created ({error}): choose another with --data-dir or REVWALLET_DATA_DIR, or set DATABASE_URL to a server of yours",
            data_dir.display()
        )
    })
}

/// Returns the cluster at a path; `None` if the path does not exist or is an empty folder. Returns an error for a
/// folder that contains anything else, and for a link whose target is missing.
fn find_cluster(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let cluster = match path.canonicalize() {
        Ok(cluster) => cluster,
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => {
            let target = fs::read_link(path).unwrap_or_default();
            bail!(
                "the cluster that {} points to is missing: restore {}, or remove the link to start with an empty database",
                path.display(),
                target.display()
            );
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot access {}", path.display()));
        }
    };
    match fs::symlink_metadata(cluster.join("PG_VERSION")) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // If access is denied, the cluster belongs to another user, which `OsUser::owner_of` reports.
        _ => return Ok(Some(cluster)),
    }
    let empty = fs::read_dir(&cluster).is_ok_and(|mut entries| entries.next().is_none());
    if !empty {
        bail!(
            "{} is not a Postgres cluster: move it away, or choose another folder with --data-dir",
            cluster.display()
        );
    }
    Ok(None)
}

/// Creates a folder for the cluster outside the data directory. Needed if Postgres cannot enter the data directory, or
/// if the path of the data directory is too long.
fn create_elsewhere(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let base = if geteuid().is_root() {
        PathBuf::from("/var/lib/revwallet")
    } else {
        let home = environment::home().context("the path of the data directory is too long for Postgres and HOME is not set: choose a shorter one with --data-dir")?;
        home.join(".local/share/revwallet")
    };
    let home = base.join(hash(data_dir));
    let create = || {
        fs::create_dir_all(&home)?;
        // Postgres must be able to enter these folders, whatever the umask is. Only its user can enter the cluster
        // itself.
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755))?;
        home.canonicalize()
    };
    create().map_err(|error| {
        anyhow!(
            "Postgres cannot use {} and {} cannot be created ({error}): choose another data directory with --data-dir",
            data_dir.display(),
            home.display()
        )
    })
}

fn hash(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    let (first, _) = digest.as_slice().split_first_chunk().expect("a digest has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_sixteen_digits_and_depends_on_the_path() {
        assert_eq!(hash(Path::new("/a")), "6a50dc8584134c7d");
        assert_ne!(hash(Path::new("/a")), hash(Path::new("/b")));
        assert_eq!(hash(Path::new("/b")).len(), 16);
    }
}
