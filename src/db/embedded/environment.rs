//! Environment variables that the private Postgres depends on. They are conventions of the operating system, not
//! settings of the program.

use std::ffi::OsString;
use std::path::PathBuf;

/// Folders that shells search for programs.
pub(super) fn path() -> Vec<PathBuf> {
    variable("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Home directory of the user that started the program.
pub(super) fn home() -> Option<PathBuf> {
    variable("HOME").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Runtime directory of the user that started the program; sockets belong in this directory.
pub(super) fn runtime_dir() -> Option<PathBuf> {
    variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Environment variables that contain search paths for shared libraries. Postgres needs them if its libraries are in an
/// unusual folder.
pub(super) fn library_paths() -> impl Iterator<Item = (&'static str, OsString)> {
    ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"]
        .into_iter()
        .filter_map(|name| Some((name, variable(name)?)))
}

#[expect(clippy::disallowed_methods, reason = "conventions of the system, not settings of ours")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
