//! The log file of the private Postgres. Each start of Postgres rotates the log if it has grown large. If Postgres
//! fails to start, the error message quotes the log.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;

/// Size beyond which the log is rotated at the next start. Rotation overwrites the previously rotated log.
const SIZE_MAX: u64 = 10 * 1024 * 1024;

/// Number of bytes at the end of the log that are searched for the reason of a failure.
const TAIL_MAX: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the log for appending.
    pub(super) fn open(&self) -> anyhow::Result<File> {
        self.try_open().map_err(|error| {
            anyhow!(
                "the data directory cannot be written ({}: {error}): make it writable, or choose another with --data-dir or REVWALLET_DATA_DIR",
                self.path.display()
            )
        })
    }

    fn try_open(&self) -> std::io::Result<File> {
        if SIZE_MAX < self.size() {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        let new = !self.path.exists();
        // Root must not follow a symbolic link that another user has placed there.
        let mut options = OpenOptions::new();
        let file = options
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&self.path)?;
        if new && geteuid().is_root() {
            let folder = self.path.parent().unwrap_or(&self.path).metadata()?;
            fchown(&file, Some(folder.uid()), Some(folder.gid()))?;
        }
        Ok(file)
    }

    /// Returns the current length of the log, in bytes, which is where Postgres appends its next message.
    pub(super) fn size(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Returns the last error that Postgres logged after the first `start` bytes of the log.
    pub(super) fn last_error_since(&self, start: u64) -> String {
        let mut tail = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(start.max(self.size().saturating_sub(TAIL_MAX))))?;
            file.read_to_end(&mut tail)
        });
        if read.is_err() {
            return String::new();
        }
        last_error(&String::from_utf8_lossy(&tail))
    }
}

/// Returns the last line that contains a fatal error or, if there is none, the last line that is not blank.
fn last_error(text: &str) -> String {
    let is_fatal = |line: &&str| ["FATAL:", "PANIC:"].iter().any(|level| line.contains(level));
    let line =
        text.lines().rfind(is_fatal).or_else(|| text.lines().rfind(|line| !line.trim().is_empty()));
    line.unwrap_or("no output").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fatal_line_is_the_error() {
        let text = "LOG:  starting\nFATAL:  first\n2025 [7] FATAL:  lock file exists\nHINT:  is it running?\n";

        assert_eq!(last_error(text), "2025 [7] FATAL:  lock file exists");
        assert_eq!(last_error("postgres: cannot load libpq\n\n"), "postgres: cannot load libpq");
        assert_eq!(last_error(""), "no output");
    }
}
