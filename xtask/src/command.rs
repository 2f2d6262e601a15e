//! Running programs, with what they say in sight.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// The cargo that runs this program, in the workspace.
pub fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace());
    command
}

/// Runs it with its output on ours: true if its status is 0.
pub fn run(command: &mut Command) -> Result<bool, Error> {
    say(command);
    command.status().map(|status| status.success()).map_err(|source| start_error(command, source))
}

/// Runs it, its output on ours as it comes, and hands each line of its standard output to `each`.
pub fn run_lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<bool, Error> {
    say(command);
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|source| start_error(command, source))?;
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        // What is not UTF-8 (a test may print anything) is shown as well as it can be.
        while output.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches('\n');
            println!("{text}");
            each(text);
            line.clear();
        }
    }
    child.wait().map(|status| status.success()).map_err(|source| start_error(command, source))
}

/// Runs it in silence: its standard output if its status is 0. A program that is not there says nothing either.
pub fn ask(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn say(command: &Command) {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    eprintln!("\n$ {program} {}", words.join(" "));
}

fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}
