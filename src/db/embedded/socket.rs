//! The folder for the Unix socket of the private Postgres. The path of the folder is short enough for a socket, and
//! other users cannot access the folder.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use nix::unistd::geteuid;

use super::environment;
use super::os_user::OsUser;

/// File name of the socket for port 5432.
const SOCKET: &str = ".s.PGSQL.5432";

/// Longest path of a socket, in bytes. This is the limit of macOS; Linux allows 107.
const SOCKET_PATH_MAX: usize = 103;

/// Chooses and prepares the folder for the socket: the first candidate that works.
pub(super) fn choose(hash: &str, os_user: &OsUser) -> anyhow::Result<PathBuf> {
    let shared =
        if geteuid().is_root() { Some(PathBuf::from("/run")) } else { environment::runtime_dir() };
    let preferred = shared.map(|folder| folder.join("revwallet").join(hash));
    if let Some(folder) = preferred.filter(|folder| fits(folder))
        && prepare(&folder, os_user).is_ok()
    {
        return Ok(folder);
    }
    let fallback = PathBuf::from(format!("/tmp/revwallet-{}-{hash}", geteuid()));
    prepare(&fallback, os_user)?;
    Ok(fallback)
}

/// Creates the folder if it is missing, and makes it accessible only to the user that runs Postgres.
pub(super) fn prepare(folder: &Path, os_user: &OsUser) -> anyhow::Result<()> {
    let to_error = |cause: std::io::Error| {
        anyhow!("cannot prepare the folder {} for the database's socket: {cause}", folder.display())
    };
    let parent = folder.parent().context("the folder for a socket cannot be the root folder")?;
    if !parent.exists() {
        fs::create_dir_all(parent).map_err(to_error)?;
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).map_err(to_error)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {}
        Err(cause) => return Err(to_error(cause)),
    }
    // A symbolic link, or a folder of another user, would let another user impersonate the database.
    let metadata = folder.symlink_metadata().map_err(to_error)?;
    let owner = metadata.uid();
    // If this process is root, only root creates such folders outside of /tmp, so the folder is from an earlier
    // Postgres that ran as another user.
    let is_created_by_root = geteuid().is_root() && (owner == 0 || !folder.starts_with("/tmp"));
    if !metadata.is_dir() || !(owner == os_user.uid || is_created_by_root) {
        bail!(
            "the folder {} for the database's socket belongs to another user: remove it and start again",
            folder.display()
        );
    }
    os_user.take_ownership(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(to_error)
}

/// Whether the path of a socket in this folder is short enough.
fn fits(folder: &Path) -> bool {
    folder.as_os_str().len() + 1 + SOCKET.len() <= SOCKET_PATH_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbolic_link_is_refused() {
        let link = std::env::temp_dir().join(format!("revwallet-socket-{}", std::process::id()));
        std::os::unix::fs::symlink("/tmp", &link).expect("the link is new");

        let prepared = prepare(&link, &OsUser { uid: geteuid().as_raw(), gid: 0, is_other: false });

        fs::remove_file(&link).expect("the link exists");
        assert!(
            prepared
                .expect_err("a link is not a folder")
                .to_string()
                .contains("belongs to another user")
        );
    }

    #[test]
    fn the_length_of_a_socket_path_is_limited() {
        assert!(fits(Path::new("/run/user/1000/revwallet/0123456789abcdef")));
        assert!(fits(Path::new(&"x".repeat(89))));
        assert!(!fits(Path::new(&"x".repeat(90))));
    }
}
