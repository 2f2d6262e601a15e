//! Where log lines go: standard error, or a file of bounded size.

use crate::cli::role::LogFormat;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A log file that grew beyond this is renamed to `FILE.1`, and a new one begun: at most twice this much is kept.
const MAX_BYTES: u64 = 8 << 20;

/// Sets up the log of this process: to a file if one is given. RUST_LOG says what is logged; warnings if it does not.
///
/// # Errors
/// A sentence if the file cannot be written, or RUST_LOG is no filter.
pub fn start(file: Option<&Path>, format: LogFormat) -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|e| {
            Error::usage(format!("RUST_LOG={text:?} is no filter ({e}): use one such as info or slice=debug"))
        })?,
        Err(_) => EnvFilter::new("warn"),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    let log = file.map(|path| Rotating::open(path).map_err(Error::io("write", path))).transpose()?;
    // An error means that a subscriber is set already, which keeps logging.
    let _ = match (log, format) {
        (None, LogFormat::Text) => subscriber.with_writer(io::stderr).try_init(),
        (None, LogFormat::Json) => subscriber.json().flatten_event(true).with_writer(io::stderr).try_init(),
        (Some(log), LogFormat::Text) => subscriber.with_ansi(false).with_writer(log).try_init(),
        (Some(log), LogFormat::Json) => subscriber.json().flatten_event(true).with_writer(log).try_init(),
    };
    Ok(())
}

/// A log file of bounded size.
struct Rotating(Mutex<Open>);

struct Open {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Rotating {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self(Mutex::new(Open { path: path.to_owned(), file, bytes })))
    }
}

impl Open {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > MAX_BYTES {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            self.file = File::options().create(true).append(true).open(&self.path)?;
            self.bytes = 0;
        }
        self.bytes += line.len() as u64;
        self.file.write_all(line)
    }
}

/// One event's line.
struct Line<'a>(&'a Rotating);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A thread that panicked while it logged leaves nothing half-done that matters.
        let mut open = self.0.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        open.write(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Rotating {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/x.log");
        let log = Rotating::open(&path).unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..10 {
            log.make_writer().write_all(&line).unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        assert_eq!(std::fs::metadata(dir.path().join("log/x.log.1")).unwrap().len(), 9 << 20);
    }
}
