//! Where the tests keep what they make: all of it under the workspace's `target`.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// The workspace's root.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Initial RAM file systems of guests, and `logs/`.
pub fn guest_folder() -> PathBuf {
    target().join("guest")
}

/// A tool that `cargo xtask test` builds (`cargo install --root target/tools`).
pub fn tool(name: &str) -> PathBuf {
    target().join("tools/bin").join(name)
}

/// The source package that stock_tree works on, as `cargo xtask test` gets it with apt-get.
pub fn source_tarball() -> Result<PathBuf, Error> {
    let folder = target().join("sources");
    let listed = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = listed.filter(|path| path.to_string_lossy().contains(".orig.tar.")).collect();
    found.sort();
    found.retain(|path| path.extension().is_some_and(|ending| ending != "asc"));
    let what = || format!("a source package in {} (cargo xtask test gets it)", folder.display());
    found.pop().ok_or_else(|| Error::Missing { what: what(), package: "--download-only source git" })
}
