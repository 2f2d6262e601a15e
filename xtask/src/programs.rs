//! The test programs of `slice-tests`, compiled once and then run by their paths.
//!
//! `cargo test --package slice-tests` after `cargo test --workspace` compiles 46 things again, tokio, tonic and syn
//! among them: cargo gives a dependency the features that the chosen packages ask for, and one package asks for fewer than all.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::command::{cargo, say, start_error, workspace};
use crate::error::Error;

/// The package whose programs these are.
const PACKAGE: &str = "slice-tests";

/// Test programs by name.
#[derive(Debug)]
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Compiles those of these names, or all tests of the workspace where the others are to run too. None if it does not
    /// compile.
    pub fn build(whole_workspace: bool, names: &[&str]) -> Result<Option<Self>, Error> {
        let mut command = cargo(["test", "--quiet", "--no-run", "--message-format=json-render-diagnostics"]);
        if whole_workspace {
            command.arg("--workspace");
        } else {
            command.args(["--package", PACKAGE]).args(names.iter().flat_map(|name| ["--test", name]));
        }
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        say(&command);
        let output = command.output().map_err(|source| start_error(&command, source))?;
        let lines = String::from_utf8_lossy(&output.stdout);
        Ok(output.status.success().then(|| Self(lines.lines().filter_map(parse).collect())))
    }

    /// Runs one of them where `cargo test` would; none if there is no such program.
    pub fn command(&self, name: &str) -> Option<Command> {
        let mut command = Command::new(self.0.get(name)?);
        command.current_dir(workspace().join("tests"));
        Some(command)
    }
}

/// Name and path in a line of cargo's (The Cargo Book, "External tools", artifact messages).
fn parse(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    // `path+file:///…/tests#slice-tests@0.1.0`
    let ours = message.get("package_id")?.as_str()?.contains(&format!("#{PACKAGE}@"));
    let target = message.get("target")?;
    let test = target.get("kind")?.as_array()?.iter().any(|kind| kind == "test");
    let path = message.get("executable")?.as_str()?;
    (ours && test).then(|| Some((target.get("name")?.as_str()?.to_owned(), path.into())))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_of_the_package_count() {
        let line = |package: &str, kind: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/{package}@0.1.0","target":{{"kind":["{kind}"],"name":"model"}},"executable":{executable}}}"#
            )
        };
        let ours = parse(&line("tests#slice-tests", "test", r#""/t/model-1""#));
        assert_eq!(ours, Some(("model".to_owned(), "/t/model-1".into())));
        assert_eq!(parse(&line("dirserver#slice-dirserver", "test", r#""/t/model-2""#)), None);
        assert_eq!(parse(&line("tests#slice-tests", "bin", r#""/t/model""#)), None);
        assert_eq!(parse(&line("tests#slice-tests", "test", "null")), None);
        assert_eq!(parse(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(parse("text"), None);
    }
}
