//! The folder of the Unix socket: short, and closed to everybody else.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use nix::unistd::geteuid;

use super::environment;
use super::os_user::OsUser;

/// The name that Postgres gives to the socket of port 5432.
const SOCKET: &str = ".s.PGSQL.5432";

/// Longest path of a socket: 107 bytes on Linux, 103 on macOS.
const SOCKET_PATH_MAX: usize = 103;

/// Chooses and prepares the folder for a socket: the first place that works.
pub(super) fn choose(hash: &str, account: &OsUser) -> anyhow::Result<PathBuf> {
    let shared =
        if geteuid().is_root() { Some(PathBuf::from("/run")) } else { environment::runtime_dir() };
    let preferred = shared.map(|folder| folder.join("revwallet").join(hash));
    if let Some(folder) = preferred.filter(|folder| fits(folder))
        && prepare(&folder, account).is_ok()
    {
        return Ok(folder);
    }
    let fallback = PathBuf::from(format!("/tmp/revwallet-{}-{hash}", geteuid()));
    prepare(&fallback, account)?;
    Ok(fallback)
}

/// Makes sure that the folder is there, is the account's and is closed to everybody else.
pub(super) fn prepare(folder: &Path, account: &OsUser) -> anyhow::Result<()> {
    let failed = |error: std::io::Error| {
        anyhow!("cannot prepare the folder {} for the database's socket: {error}", folder.display())
    };
    let parent = folder.parent().context("the folder for a socket cannot be the root folder")?;
    if !parent.exists() {
        fs::create_dir_all(parent).map_err(failed)?;
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    // A link, or a folder of somebody who was here first, would let them stand in for our database.
    let metadata = folder.symlink_metadata().map_err(failed)?;
    let owner = metadata.uid();
    // Outside /tmp only root makes such folders for root: this one is left from another account's Postgres.
    let root_made = geteuid().is_root() && (owner == 0 || !folder.starts_with("/tmp"));
    if !metadata.is_dir() || !(owner == account.uid || root_made) {
        bail!(
            "the folder {} for the database's socket belongs to somebody else: remove it and start again",
            folder.display()
        );
    }
    account.give(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)
}

fn fits(folder: &Path) -> bool {
    folder.as_os_str().len() + 1 + SOCKET.len() <= SOCKET_PATH_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_the_folder_is_refused() {
        let link = std::env::temp_dir().join(format!("revwallet-socket-{}", std::process::id()));
        std::os::unix::fs::symlink("/tmp", &link).expect("it is new");

        let refused = prepare(&link, &OsUser { uid: geteuid().as_raw(), gid: 0, switch: false });

        fs::remove_file(&link).expect("it is ours");
        assert!(
            refused
                .expect_err("a link leads anywhere")
                .to_string()
                .contains("belongs to somebody else")
        );
    }

    #[test]
    fn a_socket_that_the_kernel_would_cut_off_does_not_fit() {
        assert!(fits(Path::new("/run/user/1000/revwallet/0123456789abcdef")));
        assert!(fits(Path::new(&"x".repeat(89))));
        assert!(!fits(Path::new(&"x".repeat(90))));
    }
}
