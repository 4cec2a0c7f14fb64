//! The operating system user that Postgres runs as. Postgres refuses to run as root.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use nix::unistd::{Uid, User, getegid, geteuid};
use tokio::process::Command;

use super::environment;

/// Users that can run Postgres if the program runs as root, in the order of preference.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The user that owns the cluster and runs Postgres.
#[derive(Debug, Clone)]
pub(super) struct OsUser {
    pub uid: u32,
    pub gid: u32,
    /// Whether this user differs from the user that runs this program.
    pub is_other: bool,
}

impl OsUser {
    /// Returns the user that will own a new cluster and run its Postgres.
    pub(super) fn for_new_cluster() -> anyhow::Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self::current());
        }
        for name in UNPRIVILEGED {
            if let Some(user) =
                User::from_name(name).with_context(|| format!("cannot look up the user {name}"))?
            {
                return Ok(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), is_other: true });
            }
        }
        bail!(
            "Postgres refuses to run as root and this system has no unprivileged user to run it as: create the user `postgres`, or set DATABASE_URL to a server of yours"
        )
    }

    /// Returns the owner of an existing cluster, or an error if this process cannot run Postgres as the owner: root can
    /// run Postgres as any other user, other users only as themselves.
    pub(super) fn owner_of(cluster: &Path) -> anyhow::Result<Self> {
        let metadata =
            cluster.metadata().with_context(|| format!("cannot access {}", cluster.display()))?;
        let (owner, current) = (metadata.uid(), Self::current());
        if owner == 0 {
            bail!(
                "{0} belongs to root, and Postgres refuses to run as root: give it to another user (chown -R postgres {0})",
                cluster.display()
            );
        }
        if current.uid == 0 {
            return Ok(Self { uid: owner, gid: metadata.gid(), is_other: true });
        }
        if current.uid != owner {
            let name = User::from_uid(Uid::from_raw(owner))
                .ok()
                .flatten()
                .map_or(owner.to_string(), |user| user.name);
            bail!(
                "the private Postgres in {} belongs to {name}: start the program as {name} or root, or choose another folder with --data-dir",
                cluster.display()
            );
        }
        Ok(current)
    }

    fn current() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw(), is_other: false }
    }

    /// Creates a command that runs as this user, in its own process group, so that Ctrl-C at a terminal does not reach
    /// the command.
    ///
    /// The command does not inherit the environment, which may contain secrets and `PG...` variables that affect
    /// Postgres.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
        command.envs(environment::library_paths());
        // The current folder of the program may be inaccessible to this user.
        command.current_dir("/").process_group(0).stdin(Stdio::null());
        if self.is_other {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes this user the owner of `path`.
    pub(super) fn take_ownership(&self, path: &Path) -> anyhow::Result<()> {
        if !self.is_other {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot change the owner of {}", path.display()))
    }

    /// Whether this user can enter a folder. A shell that runs as the user tries to enter it, because access depends on
    /// every parent folder and not only on mode bits.
    pub(super) async fn can_enter(&self, folder: &Path) -> anyhow::Result<bool> {
        if !self.is_other {
            return Ok(true);
        }
        let mut command = self.command(Path::new("/bin/sh"));
        command
            .args(["-c", "cd -- \"$1\"", "sh"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command.kill_on_drop(true).status().await.context("cannot run /bin/sh")?.success())
    }
}
