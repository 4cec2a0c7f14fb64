//! Where the cluster lives: in the data directory when Postgres can live there.

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

/// Longest path of a cluster. Postgres cuts paths off at 1023 bytes and appends to this one.
const CLUSTER_PATH_MAX: usize = 900;

/// The folder of the cluster inside its home, and the link to it in the data directory when that is not its home.
const CLUSTER: &str = "postgres";

/// Where everything of one private Postgres is.
#[derive(Debug)]
pub(super) struct DataDir {
    pub data_dir: PathBuf,
    /// The folder that holds the cluster and its lock: the data directory or a folder of ours elsewhere.
    pub home: PathBuf,
    pub cluster: PathBuf,
    pub account: OsUser,
}

impl DataDir {
    /// Finds the cluster of a data directory, or the place for it. Once made, a cluster stays where it is.
    pub(super) async fn find(data_dir: &Path) -> anyhow::Result<Self> {
        let data_dir = make(data_dir)?;
        let path = data_dir.join(CLUSTER);
        if let Some(cluster) = existing(&path)? {
            if CLUSTER_PATH_MAX < cluster.as_os_str().len() {
                bail!(
                    "Postgres cannot work in a path this long, move the data directory to a shorter one: {}",
                    data_dir.display()
                );
            }
            let home = cluster.parent().context("a cluster cannot be the root folder")?.to_owned();
            return Ok(Self { account: OsUser::of(&cluster)?, data_dir, home, cluster });
        }
        let account = OsUser::for_new_cluster()?;
        let fits =
            path.as_os_str().len() <= CLUSTER_PATH_MAX && account.can_enter(&data_dir).await?;
        let home = if fits { data_dir.clone() } else { elsewhere(&data_dir)? };
        let cluster = home.join(CLUSTER);
        let account = match existing(&cluster)? {
            Some(cluster) => OsUser::of(&cluster)?,
            None => account,
        };
        Ok(Self { data_dir, home, cluster, account })
    }

    /// Sixteen hexadecimal digits that stand for this cluster wherever a path is too long.
    pub(super) fn hash(&self) -> String {
        hash(&self.home)
    }

    /// The name in the title of each process of this Postgres.
    pub(super) fn cluster_name(&self) -> String {
        format!("revwallet-{}", self.hash())
    }

    pub(super) fn log(&self) -> Log {
        Log::new(self.data_dir.join("postgres.log"))
    }

    /// Lets the data directory point to a cluster that could not live in it.
    pub(super) fn link(&self) -> anyhow::Result<()> {
        let link = self.data_dir.join(CLUSTER);
        if link == self.cluster || link.is_symlink() {
            return Ok(());
        }
        std::os::unix::fs::symlink(&self.cluster, &link)
            .with_context(|| format!("cannot create {}", link.display()))
    }
}

fn make(data_dir: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(data_dir).and_then(|()| data_dir.canonicalize()).map_err(|error| {
        anyhow!(
            "the data directory {} cannot be created ({error}): choose another with --data-dir or REVWALLET_DATA_DIR, or set DATABASE_URL to a server of yours",
            data_dir.display()
        )
    })
}

/// The cluster at a path; an empty folder is none, and anything else is not ours to touch.
fn existing(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let cluster = match path.canonicalize() {
        Ok(cluster) => cluster,
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => {
            let target = fs::read_link(path).unwrap_or_default();
            bail!(
                "the cluster that {} points to is gone: bring {} back, or remove the link to begin with an empty database",
                path.display(),
                target.display()
            );
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look at {}", path.display()));
        }
    };
    match fs::symlink_metadata(cluster.join("PG_VERSION")) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // Closed to us means that it is there and somebody else's, which the account will say.
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

/// A folder of ours for the cluster of a data directory that Postgres cannot enter or whose path is too long for it.
fn elsewhere(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let all = if geteuid().is_root() {
        PathBuf::from("/var/lib/revwallet")
    } else {
        let home = environment::home().context("the path of the data directory is too long for Postgres and HOME is not set: choose a shorter one with --data-dir")?;
        home.join(".local/share/revwallet")
    };
    let home = all.join(hash(data_dir));
    let make = || {
        fs::create_dir_all(&home)?;
        // Whatever the umask is, Postgres must come through; the cluster itself is closed to others.
        fs::set_permissions(&all, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755))?;
        home.canonicalize()
    };
    make().map_err(|error| {
        anyhow!(
            "Postgres cannot live in {} and {} cannot be created ({error}): choose another data directory with --data-dir",
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
    fn a_hash_is_sixteen_digits_and_differs_by_path() {
        assert_eq!(hash(Path::new("/a")), "6a50dc8584134c7d");
        assert_ne!(hash(Path::new("/a")), hash(Path::new("/b")));
        assert_eq!(hash(Path::new("/b")).len(), 16);
    }
}
