//! Which account Postgres runs as: it refuses to run as root.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use nix::unistd::{Uid, User, getegid, geteuid};
use tokio::process::Command;

use super::environment;

/// Accounts that may run Postgres when the program runs as root, best first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The account that owns the cluster and runs Postgres.
#[derive(Debug, Clone)]
pub(super) struct OsUser {
    pub uid: u32,
    pub gid: u32,
    /// Whether it is another than the program's own.
    pub switch: bool,
}

impl OsUser {
    /// The account for a new cluster.
    pub(super) fn for_new_cluster() -> anyhow::Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self::own());
        }
        for name in UNPRIVILEGED {
            if let Some(user) =
                User::from_name(name).with_context(|| format!("looking up the user {name}"))?
            {
                return Ok(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), switch: true });
            }
        }
        bail!(
            "Postgres refuses to run as root and there is no user `postgres` or `nobody` to run it as: create one, or set DATABASE_URL to a server of yours"
        )
    }

    /// The account that owns an existing cluster; root can run Postgres as anybody, others only as themselves.
    pub(super) fn of(cluster: &Path) -> anyhow::Result<Self> {
        let metadata =
            cluster.metadata().with_context(|| format!("cannot look at {}", cluster.display()))?;
        let (owner, own) = (metadata.uid(), Self::own());
        if owner == 0 {
            bail!(
                "{0} belongs to root, and Postgres refuses to run as root: give it to another user (chown -R postgres {0})",
                cluster.display()
            );
        }
        if own.uid == 0 {
            return Ok(Self { uid: owner, gid: metadata.gid(), switch: true });
        }
        if own.uid != owner {
            let name = User::from_uid(Uid::from_raw(owner))
                .ok()
                .flatten()
                .map_or(owner.to_string(), |user| user.name);
            bail!(
                "the private Postgres in {} belongs to {name}: start the program as {name} or root, or choose another folder with --data-dir",
                cluster.display()
            );
        }
        Ok(own)
    }

    fn own() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw(), switch: false }
    }

    /// A command that runs as this account, in a process group of its own so that Ctrl-C at a terminal does not reach it.
    ///
    /// It gets none of the program's environment: that may hold secrets, and `PG…` variables change what Postgres does.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
        command.envs(environment::library_paths());
        // The program's own folder may be closed to this account.
        command.current_dir("/").process_group(0).stdin(Stdio::null());
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes `path` this account's.
    pub(super) fn give(&self, path: &Path) -> anyhow::Result<()> {
        if !self.switch {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot change the owner of {}", path.display()))
    }

    /// Whether this account can enter a folder. Only the kernel knows: every parent counts, and not only mode bits.
    pub(super) async fn can_enter(&self, folder: &Path) -> anyhow::Result<bool> {
        if !self.switch {
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
