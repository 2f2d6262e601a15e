//! Everything that can go wrong while a test sets its stage.

use std::path::PathBuf;
use std::time::Duration;

/// Why a server, a guest or a tool could not be had, or did not do what its test asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that this machine should have installed is not there.
    #[error("{what} is not on this machine: apt-get install {package}")]
    Missing {
        /// What was looked for.
        what: String,
        /// The Debian package that brings it.
        package: &'static str,
    },

    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path or the address.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },

    /// A helper program ended with an error.
    #[error("{command} ended with {status}: {stderr}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// Its exit status.
        status: String,
        /// What it said on its error output.
        stderr: String,
    },

    /// A file that cannot go into an initial RAM file system (2 GiB is the most that we put there).
    #[error("{0} is too large for an initial RAM file system")]
    TooLarge(PathBuf),

    /// A guest or a server did not do in time what was waited for.
    #[error("waited {limit:?} for {what}; what was said until then is in {}", log.display())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// Where the output is.
        log: PathBuf,
    },

    /// A guest or a server ended before it did what was waited for.
    #[error("{what}; what was said until then is in {}, last of it:\n{tail}", log.display())]
    Ended {
        /// What was waited for, and how it ended.
        what: String,
        /// Where the output is.
        log: PathBuf,
        /// The last lines of the output.
        tail: String,
    },

    /// The script in the guest reports failed steps.
    #[error("in the guest: {what}; its output is in {}, last of it:\n{tail}", log.display())]
    Script {
        /// The steps that failed, with their exit statuses.
        what: String,
        /// Where the output is.
        log: PathBuf,
        /// The last lines of the output.
        tail: String,
    },

    /// `ensemble.json` does not say what the test needs of it.
    #[error("{}: {what}", path.display())]
    Ensemble {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// Names the deed that an I/O error interrupted.
pub trait Doing<T> {
    /// Turns the error into [`Error::Io`] with `what` in front of it.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, std::io::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}
