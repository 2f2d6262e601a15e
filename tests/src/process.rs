//! A server process of a test's own: its output in a log, its end with the test.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::error::{Doing, Error};
use crate::{guest, image};

/// A child process with a process group of its own. It and its group are killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

/// Lines that may wait for a test that looks for one; what comes when that many do is only in the log.
const LINES_AHEAD: usize = 4096;

impl Process {
    /// Starts `program` with its output, both streams, appended to `log`.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self, Error> {
        let say = || format!("starting {}", program.display());
        let log_file = File::options().create(true).append(true).open(log);
        let mut log_file = log_file.doing(|| format!("writing {}", log.display()))?;
        let errors = log_file.try_clone().doing(say)?;
        // The kernel kills it with the thread that started it: a test that is killed leaves no server behind.
        let mut command = Command::new(image::find_program("setpriv", "util-linux")?);
        command.args(["--pdeathsig", "KILL"]).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).process_group(0);
        let mut child = command.spawn().doing(say)?;
        let (to_test, lines) = mpsc::sync_channel(LINES_AHEAD);
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = writeln!(log_file, "{line}"); // A full disk shows elsewhere.
                    let _ = to_test.try_send(line);
                }
            });
        }
        Ok(Self { child, lines, log: log.to_owned() })
    }

    /// Waits until it prints a line for which `wanted` is true.
    pub fn wait_line(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, Error> {
        let from = Instant::now();
        loop {
            match self.lines.recv_timeout(limit.saturating_sub(from.elapsed())) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Error::Timeout { what: what.to_owned(), limit, log: self.log.clone() });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().doing(|| format!("waiting for {what}"))?;
                    return Err(self.ended(format!("the server ended ({status}) before {what}")));
                }
            }
        }
    }

    /// Waits until this loopback port accepts connections: for servers that print nothing when they are ready.
    pub fn wait_port(&mut self, port: u16, limit: Duration) -> Result<(), Error> {
        let from = Instant::now();
        while !listens(port) {
            if !self.running() {
                return Err(self.ended(format!("the server ended before it listened on port {port}")));
            }
            if from.elapsed() > limit {
                let what = format!("a server on port {port}");
                return Err(Error::Timeout { what, limit, log: self.log.clone() });
            }
            thread::sleep(PORT_PAUSE); // There is no event to wait for.
        }
        // Or it was a stranger's port, and ours has ended because it could not have it.
        if self.running() { Ok(()) } else { Err(self.ended(format!("port {port} is somebody else's"))) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// True until it has ended.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let Some(pid) = raw_pid(self.child.id()) else { return Ok(()) };
        kill_process(pid, signal)
            .map_err(Into::into)
            .doing(|| format!("signalling process {}", self.child.id()))
    }

    /// SIGKILL to it and all of its group, and waits for its end.
    pub fn kill(&mut self) {
        if let (true, Some(group)) = (self.running(), raw_pid(self.child.id())) {
            let _ = kill_process_group(group, Signal::KILL); // No such group: all have ended.
        }
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let from = Instant::now();
        // Its output ends with it: that is an event that can be waited for, a process's end without a signal handler is not.
        while from.elapsed() < limit {
            match self.lines.recv_timeout(limit.saturating_sub(from.elapsed())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    return self.child.wait().doing(|| "waiting for the server's end".into());
                }
            }
        }
        Err(Error::Timeout { what: "the process to end".into(), limit, log: self.log.clone() })
    }

    /// [`Error::Ended`] with the end of the log.
    pub fn ended(&self, what: String) -> Error {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        Error::Ended { what, log: self.log.clone(), tail: guest::tail(&text) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process id as the system calls take it.
pub(crate) fn raw_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// True if a clean end: exit status 0, no signal.
pub fn clean(status: ExitStatus) -> bool {
    status.success() && status.signal().is_none()
}

/// Between two looks at a port.
const PORT_PAUSE: Duration = Duration::from_millis(50);

/// True if somebody accepts connections on this loopback port.
pub fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Below the ports that systems give to outgoing connections and to listeners that ask for any: there, another test's socket
/// would sooner or later take a port between our drawing it and our server's binding it. `slice up` draws its own above.
const PORTS: Range<u16> = 10_000..20_000;

/// Draws before giving up: by then nearly every port is taken.
const DRAWS_MAX: usize = 1000;

/// A TCP port of the loopback that nobody listens on, and that no other test draws while this program runs: seconds may pass
/// before the server listens that is started on it. A name in the abstract namespace of Unix sockets is the sign; the
/// system gives it to one only, and takes it back when the program ends.
pub fn free_port() -> Result<u16, Error> {
    static DRAWN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let say = || "drawing a free port".to_owned();
    let take = |port: u16| {
        let name = SocketAddr::from_abstract_name(format!("slice-test-port-{port}"))?;
        let sign = UnixListener::bind_addr(&name)?;
        TcpListener::bind(("127.0.0.1", port))?;
        DRAWN.lock().unwrap_or_else(PoisonError::into_inner).push(sign);
        Ok(port)
    };
    for _ in 1..DRAWS_MAX {
        if let Ok(port) = take(rand::random_range(PORTS)) {
            return Ok(port);
        }
    }
    take(rand::random_range(PORTS)).doing(say)
}
