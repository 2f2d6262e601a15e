//! Where the tests keep what they make: all of it under the workspace's `target`.

use std::path::{Path, PathBuf};

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
