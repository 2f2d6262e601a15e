//! docs/operations.md as a test reads it: its commands are run as they stand there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: a test may stop at the first surprise"
)]

use crate::paths;
use std::collections::BTreeMap;
use std::fs;

/// The commands below a line `<!-- run by tests/tests/PROGRAM.rs: NAME -->`, by name.
#[must_use]
pub fn commands(program: &str) -> BTreeMap<String, Vec<String>> {
    let mark = format!("<!-- run by tests/tests/{program}.rs: ");
    let text = fs::read_to_string(paths::workspace().join("docs/operations.md")).unwrap();
    let mut blocks = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix(&mark).and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        assert_eq!(lines.next(), Some("```sh"), "what follows the mark {name}");
        let commands: Vec<_> = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
        assert!(!commands.is_empty(), "{name} has no commands");
        assert!(blocks.insert(name.to_owned(), commands).is_none(), "{name} stands there twice");
    }
    blocks
}
