//! Test programs from the Rust registry, built once into `target/tools`.

use crate::command::{cargo, run, target};
use crate::error::Error;

/// A program and the suite that runs it.
#[derive(Debug)]
pub struct Tool {
    /// The crate and its program, which have one name.
    pub name: &'static str,
    /// The version whose results docs/stock-client.md speaks of.
    pub version: &'static str,
    /// The suite.
    pub suite: &'static str,
}

/// All of them.
pub const TOOLS: [Tool; 2] = [
    Tool { name: "pjdfstest", version: "0.2.2", suite: "stock_pjdfstest" },
    Tool { name: "fsx", version: "0.3.2", suite: "stock_fsx" },
];

/// Builds what these suites need and is not there in its version: the tools that could not be had.
pub fn ensure(suites: &[&str]) -> Result<Vec<&'static Tool>, Error> {
    let root = target().join("tools");
    let mut missing = Vec::new();
    for tool in TOOLS.iter().filter(|tool| suites.contains(&tool.suite)) {
        // cargo install leaves a tool alone that is there in this version.
        let package = format!("{}@{}", tool.name, tool.version);
        let mut install = cargo(["install", "--quiet", "--locked", &package, "--root"]);
        if !run(install.arg(&root))? {
            missing.push(tool);
        }
    }
    Ok(missing)
}
