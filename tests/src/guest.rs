//! A stock Linux client: a Debian kernel with its own NFS client, started under qemu's software emulation.
//!
//! No privilege and no kernel module of this machine is used: the kernel is only unpacked here, and qemu's user
//! network shows the guest this machine's loopback as 10.0.2.2. A script runs in the mounted directory.
//!
//! ```text
//!  test ── Spec::boot ──▶ qemu ─ console ─▶ NAME.console.log
//!    ▲                     │
//!    │ marks, log          │ one virtio port, both ways
//!    └──── reader thread ◀─┴─▶ /guest/script's output, its marks, and what the test says to it
//! ```
//!
//! A script reports with `mark NAME STATUS` and `step NAME COMMAND...` (guest_lib.sh): lines of their own that carry
//! a number drawn for this boot, so nothing that a program prints is taken for a result.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::base;
use crate::error::{Doing, Error};
use crate::image::{self, Image};
use crate::paths;

/// One NFS mount in the guest, of a server on this machine's loopback.
#[derive(Clone, Debug)]
pub struct Mount {
    port: u16,
    place: String,
    export: String,
    options: String,
}

impl Mount {
    /// The export `/` of the server that answers NFS and MOUNT on this loopback port, at `/mnt`, without locks.
    pub fn new(port: u16) -> Self {
        Self { port, place: "/mnt".into(), export: "/".into(), options: "nolock".into() }
    }

    /// Mounts at this absolute path.
    #[must_use]
    pub fn at(mut self, place: &str) -> Self {
        place.clone_into(&mut self.place);
        self
    }

    /// Mounts this export.
    #[must_use]
    pub fn export(mut self, export: &str) -> Self {
        export.clone_into(&mut self.export);
        self
    }

    /// Adds mount options, as `mount -o` takes them.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options = format!("{},{option}", self.options);
        self
    }

    /// Its line in `/guest/mounts`.
    fn line(&self) -> String {
        let Self { port, place, export, options } = self;
        format!("{place} {export} vers=3,proto=tcp,port={port},mountproto=tcp,mountport={port},{options}\n")
    }
}

/// What a script reported with `mark`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The step's name.
    pub name: String,
    /// Its exit status; 0 is success.
    pub status: i32,
    /// What the script said besides.
    pub text: String,
}

/// What a guest shall be. Build it up, then [`Spec::boot`] or [`Spec::run`] it.
#[derive(Clone, Debug)]
pub struct Spec {
    name: String,
    image: Image,
    mounts: Vec<Mount>,
    memory_mib: u32,
    cpus: u32,
    limit: Duration,
}

/// Enough for the kernel, the base image and a few small programs.
const MEMORY_MIB: u32 = 768;

/// How long a guest may take unless its test says otherwise; booting takes 6 s on an idle machine.
const LIMIT: Duration = Duration::from_secs(300);

impl Spec {
    /// A guest without mounts. The name is for its logs, `target/guest/logs/NAME.log`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: Image::new(),
            mounts: Vec::new(),
            memory_mib: MEMORY_MIB,
            cpus: 1,
            limit: LIMIT,
        }
    }

    /// Adds a mount. The script runs in the first one.
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// The guest's memory, in MiB.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// The guest's processors.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// How long the guest may take from its start to its end; then it is killed.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The files that this guest has besides the base (busybox, mount.nfs, kernel modules, users).
    pub fn image(&mut self) -> &mut Image {
        &mut self.image
    }

    /// Puts a program of this machine into the guest's `/usr/local/bin`.
    pub fn program(mut self, host: &Path) -> Result<Self, Error> {
        let name = host.file_name().unwrap_or_default().to_string_lossy();
        self.image.program(host, &format!("/usr/local/bin/{name}"))?;
        Ok(self)
    }

    /// Starts the guest on this script and comes back at once.
    pub fn boot(self, script: &str) -> Result<Guest, Error> {
        Guest::boot(self, script)
    }

    /// Starts the guest on this script, waits for its end, and fails if a step failed.
    pub fn run(self, script: &str) -> Result<Outcome, Error> {
        self.boot(script)?.finish()?.check()
    }

    /// Gives the guest's console to the caller's terminal, with a shell in the first mount (or the script's output),
    /// and comes back with the exit status of qemu.
    pub fn interact(mut self) -> Result<bool, Error> {
        let settings = self.settings(0, true);
        self.image.text("/guest/settings", 0o644, settings);
        let initrd = self.initrd("")?;
        let mut qemu = self.qemu(initrd.path())?;
        qemu.args(["-serial", "stdio"]);
        Ok(qemu.status().doing(|| "starting qemu".into())?.success())
    }

    fn settings(&self, nonce: u64, interactive: bool) -> String {
        let limit_s = self.limit.as_secs();
        let interactive = if interactive { "yes" } else { "" };
        format!("NONCE={nonce:016x}\nLIMIT_S={limit_s}\nINTERACTIVE={interactive}\n")
    }

    /// The base, cached by content, and behind it what this guest adds.
    fn initrd(&mut self, script: &str) -> Result<tempfile::NamedTempFile, Error> {
        let mounts: String = self.mounts.iter().map(Mount::line).collect();
        self.image.text("/guest/mounts", 0o644, mounts);
        self.image.text("/guest/script", 0o644, script);
        let say = || "writing the guest's initial RAM file system".to_owned();
        let folder = paths::guest_folder();
        fs::create_dir_all(&folder).doing(say)?;
        let mut initrd = tempfile::NamedTempFile::new_in(&folder).doing(say)?;
        let mut base = File::open(base::cached(&base::kernel()?)?).doing(say)?;
        io::copy(&mut base, initrd.as_file_mut()).doing(say)?;
        self.image.write(initrd.as_file_mut())?;
        Ok(initrd)
    }

    fn qemu(&self, initrd: &Path) -> Result<Command, Error> {
        let qemu = image::find_program("qemu-system-x86_64", "qemu-system-x86")?;
        // A test that is killed leaves no guest behind: the kernel kills it with the thread that started it.
        let mut command = Command::new(image::find_program("setpriv", "util-linux")?);
        command.args(["--pdeathsig", "KILL"]).arg(qemu);
        command.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
        ]);
        command.args(["-m", &self.memory_mib.to_string(), "-smp", &self.cpus.to_string()]);
        command.arg("-kernel").arg(base::kernel()?.image).arg("-initrd").arg(initrd);
        command.args(["-append", "console=ttyS0 panic=-1 quiet mitigations=off loglevel=3"]);
        command.args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]);
        command.args(["-device", "virtio-rng-pci"]);
        Ok(command)
    }
}

/// A guest that runs. It is killed when it is dropped.
#[derive(Debug)]
pub struct Guest {
    qemu: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    nonce: String,
    marks: Vec<Mark>,
    log: String,
    log_path: PathBuf,
    started: Instant,
    limit: Duration,
    _initrd: tempfile::NamedTempFile,
}

/// Lines that the reader thread may have read ahead of the test. A guest that prints more waits.
const LINES_AHEAD: usize = 4096;

/// How much of the output goes into an error.
const TAIL_LINES: usize = 60;

impl Guest {
    fn boot(mut spec: Spec, script: &str) -> Result<Self, Error> {
        let nonce = RandomState::new().build_hasher().finish();
        let settings = spec.settings(nonce, false);
        spec.image.text("/guest/settings", 0o644, settings);
        let initrd = spec.initrd(script)?;

        let logs = paths::guest_folder().join("logs");
        fs::create_dir_all(&logs).doing(|| format!("making {}", logs.display()))?;
        let console = logs.join(format!("{}.console.log", spec.name));
        let log_path = logs.join(format!("{}.log", spec.name));
        let log_file = File::create(&log_path).doing(|| format!("writing {}", log_path.display()))?;

        let mut qemu = spec.qemu(initrd.path())?;
        qemu.args(["-serial", &format!("file:{}", console.display())]);
        qemu.args(["-chardev", "stdio,id=port,signal=off", "-device", "virtio-serial-pci"]);
        qemu.args(["-device", "virtserialport,chardev=port,name=slice"]);
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut qemu = qemu.spawn().doing(|| "starting qemu".into())?;
        let (to_test, lines) = mpsc::sync_channel(LINES_AHEAD);
        if let Some(output) = qemu.stdout.take() {
            thread::spawn(move || {
                read_lines(BufReader::new(output), log_file, |line| to_test.send(line).is_ok())
            });
        }
        Ok(Self {
            input: qemu.stdin.take(),
            qemu,
            lines,
            nonce: format!("@@{nonce:016x} "),
            marks: Vec::new(),
            log: String::new(),
            log_path,
            started: Instant::now(),
            limit: spec.limit,
            _initrd: initrd,
        })
    }

    /// Waits until the script has made the mark of this name; at once if it has already.
    pub fn wait_mark(&mut self, name: &str) -> Result<Mark, Error> {
        loop {
            if let Some(mark) = self.marks.iter().find(|mark| mark.name == name) {
                return Ok(mark.clone());
            }
            if !self.next_line(name)? {
                let what = format!("the guest ended before its mark {name}");
                return Err(Error::Ended { what, log: self.log_path.clone(), tail: tail(&self.log) });
            }
        }
    }

    /// Sends a line to a script that is, or comes, in `await_host`.
    pub fn say(&mut self, line: &str) -> Result<(), Error> {
        let Some(input) = self.input.as_mut() else { return Ok(()) };
        writeln!(input, "{line}")
            .and_then(|()| input.flush())
            .doing(|| format!("saying {line:?} to the guest"))
    }

    /// Waits for the guest's end.
    pub fn finish(mut self) -> Result<Outcome, Error> {
        while self.next_line("the guest's end")? {}
        let status = self.qemu.wait().doing(|| "waiting for qemu".into())?;
        let exit = self.marks.iter().rev().find(|mark| mark.name == "exit").map(|mark| mark.status);
        let Some(exit) = exit else {
            let what = format!("the guest ended without a result, qemu with {status}");
            return Err(Error::Ended { what, log: self.log_path.clone(), tail: tail(&self.log) });
        };
        Ok(Outcome {
            exit,
            marks: std::mem::take(&mut self.marks),
            log: std::mem::take(&mut self.log),
            log_path: self.log_path.clone(),
            took: self.started.elapsed(),
        })
    }

    /// Takes in the next line of output: false at its end.
    fn next_line(&mut self, wanted: &str) -> Result<bool, Error> {
        let left = self.limit.saturating_sub(self.started.elapsed());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                match line.strip_prefix(&self.nonce).and_then(parse_mark) {
                    Some(mark) => self.marks.push(mark),
                    None => {
                        self.log.push_str(&line);
                        self.log.push('\n');
                    }
                }
                Ok(true)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(false),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::Timeout { what: wanted.to_owned(), limit: self.limit, log: self.log_path.clone() })
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Fails only if it has ended and been waited for.
        if self.qemu.kill().is_ok() {
            let _ = self.qemu.wait();
        }
    }
}

/// How a guest's script ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The script's exit status (a mount's, if it failed).
    pub exit: i32,
    /// All marks, in their order: the mounts', the script's, the unmounts', `exit`.
    pub marks: Vec<Mark>,
    /// What the script printed, marks left out.
    pub log: String,
    /// Where all of it is, marks included.
    pub log_path: PathBuf,
    /// From start to end.
    pub took: Duration,
}

impl Outcome {
    /// Passes an outcome on if its exit status and those of all marks are 0.
    pub fn check(self) -> Result<Self, Error> {
        let failed: Vec<_> = self
            .marks
            .iter()
            .filter(|m| m.status != 0)
            .map(|m| format!("{} ({})", m.name, m.status))
            .collect();
        if failed.is_empty() && self.exit == 0 {
            return Ok(self);
        }
        Err(Error::Script { what: failed.join(", "), log: self.log_path, tail: tail(&self.log) })
    }

    /// What the script said with the mark of this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.marks.iter().find(|mark| mark.name == name).map(|mark| mark.text.as_str())
    }
}

/// Reads until the end, copies every line into the log file at once (to be followed), and hands it on.
fn read_lines(mut from: impl BufRead, mut log: File, mut hand_on: impl FnMut(String) -> bool) {
    let mut line = Vec::new();
    loop {
        line.clear();
        // An error here is a guest that was killed: its end, like the other.
        if from.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            continue;
        }
        let _ = writeln!(log, "{text}"); // A full disk shows elsewhere; the test goes on.
        if !hand_on(text.to_owned()) {
            return;
        }
    }
}

/// `NAME STATUS TEXT`.
fn parse_mark(line: &str) -> Option<Mark> {
    let mut words = line.splitn(3, ' ');
    let name = words.next().filter(|name| !name.is_empty())?.to_owned();
    let status = words.next()?.parse().ok()?;
    Some(Mark { name, status, text: words.next().unwrap_or_default().trim().to_owned() })
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_name_a_status_and_a_text() {
        let mark =
            |name: &str, status, text: &str| Some(Mark { name: name.into(), status, text: text.into() });
        assert_eq!(parse_mark("untar 0 4.2 s"), mark("untar", 0, "4.2 s"));
        assert_eq!(parse_mark("mount:/mnt 32 "), mark("mount:/mnt", 32, ""));
        assert_eq!(parse_mark("untar"), None);
        assert_eq!(parse_mark("untar zero"), None);
        assert_eq!(parse_mark(" 0"), None);
    }

    #[test]
    fn a_mount_says_both_ports() {
        let line = Mount::new(2049).at("/b").option("nconnect=16").line();
        assert_eq!(
            line,
            "/b / vers=3,proto=tcp,port=2049,mountproto=tcp,mountport=2049,nolock,nconnect=16\n"
        );
    }

    #[test]
    fn an_outcome_fails_by_any_mark() {
        let mark = |status| Mark { name: "m".into(), status, text: String::new() };
        let outcome = |exit, statuses: &[i32]| Outcome {
            exit,
            marks: statuses.iter().map(|s| mark(*s)).collect(),
            log: String::new(),
            log_path: PathBuf::new(),
            took: Duration::ZERO,
        };
        assert!(outcome(0, &[0, 0]).check().is_ok());
        assert!(outcome(0, &[0, 1]).check().is_err());
        assert!(outcome(1, &[]).check().is_err());
    }
}
