//! Running programs, with what they say in sight.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

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

/// As [`cargo`], but only with what others leave of the processors.
pub fn cargo_aside<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let cargo = cargo(arguments);
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(cargo.get_program()).args(cargo.get_args()).current_dir(workspace());
    command
}

/// Runs it with its output on ours: true if its status is 0.
pub fn run(command: &mut Command) -> Result<bool, Error> {
    say(command);
    command.status().map(|status| status.success()).map_err(|source| start_error(command, source))
}

/// Runs it, its output on ours as it comes, and hands each line of its standard output to `each`. After `limit` it is
/// killed with all that it has started, and has failed: a test that hangs must not hang what waits for the tests.
pub fn run_lines(command: &mut Command, limit: Duration, mut each: impl FnMut(&str)) -> Result<bool, Error> {
    say(command);
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|source| start_error(command, source))?;
    let (hand_on, lines) = mpsc::sync_channel(LINES_AHEAD);
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            // What is not UTF-8 (a test may print anything) is shown as well as it can be.
            while output.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                if hand_on.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
    }
    let began = Instant::now();
    loop {
        match lines.recv_timeout(limit.saturating_sub(began.elapsed())) {
            Ok(line) => {
                println!("{line}");
                each(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("still running after {} minutes: killed", limit.as_secs() / 60);
                kill(child.id());
                let _ = child.wait(); // It was killed.
                return Ok(false);
            }
        }
    }
    child.wait().map(|status| status.success()).map_err(|source| start_error(command, source))
}

/// Lines that a program may print ahead of us.
const LINES_AHEAD: usize = 1024;

/// Kills a child of ours with all of its descendants.
fn kill(child: u32) {
    let mut all = vec![child.to_string()];
    let mut parents = processes();
    loop {
        let (found, rest): (Vec<_>, Vec<_>) =
            parents.into_iter().partition(|(_, parent)| all.contains(parent));
        if found.is_empty() {
            break;
        }
        all.extend(found.into_iter().map(|(process, _)| process));
        parents = rest;
    }
    ask(Command::new("kill").arg("-KILL").args(all));
}

/// All processes, each with its parent.
fn processes() -> Vec<(String, String)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parent = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // proc(5): pid (name) state ppid …; the name may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        Some((entry.file_name().to_string_lossy().into_owned(), rest.split(' ').nth(1)?.to_owned()))
    };
    entries.filter_map(parent).collect()
}

/// Runs it in silence: its standard output if its status is 0. A program that is not there says nothing either.
pub fn ask(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Shows what is about to run.
pub fn say(command: &Command) {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    eprintln!("\n$ {program} {}", words.join(" "));
}

/// A program could not be started.
pub fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_and_the_status_counts() {
        let mut lines = Vec::new();
        let good =
            run_lines(Command::new("sh").args(["-c", "echo a; echo b; exit 1"]), Duration::MAX, |line| {
                lines.push(line.to_owned());
            });
        assert_eq!((good.unwrap(), lines.join(" ")), (false, "a b".to_owned()));
    }

    #[test]
    fn what_hangs_is_killed_with_what_it_started() {
        let mut pid = String::new();
        // A job in the background has another standard input.
        let script = "exec 3<&0; sh -c 'echo $$; read line <&3' & wait";
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(reader);
        assert!(!run_lines(&mut command, Duration::from_secs(1), |line| pid = line.to_owned()).unwrap());
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
        };
        // SIGKILL is on its way; a loop without end would be a failure too.
        while lives() {
            thread::yield_now();
        }
    }
}
