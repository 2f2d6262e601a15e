//! Each role alone in its process.

pub mod coordinator;
pub mod proxy;
pub mod server;

use crate::cli::role::RunArgs;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::signals::Stop;

/// Runs what `host` holds until a signal, or until it cannot go on.
///
/// # Errors
/// Why it cannot.
pub async fn serve(mut host: Host, stop: &mut Stop) -> Result<()> {
    let ended = tokio::select! {
        error = host.failed() => Err(error),
        () = stop.wait() => Ok(()),
    };
    host.stop().await;
    ended
}

/// What every role does before anything else.
///
/// # Errors
/// A sentence.
pub fn begin(run: &RunArgs) -> Result<()> {
    if let Some(parent) = run.parent {
        crate::signals::die_with(parent)?;
    }
    crate::logging::start(run.log.as_deref(), run.log_format.unwrap_or_default())
}

/// Waits for `work`; `None` if a stop is asked for before it is done.
pub async fn unless_stopped<T>(stop: &mut Stop, work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    tokio::select! {
        done = work => done.map(Some),
        () = stop.wait() => Ok(None),
    }
}

/// A sentence for a directory that a role cannot do without.
pub fn needs(command: &str, flag: &str) -> Error {
    Error::usage(format!("slice {command} needs {flag}: `slice {command} --help` says what it is"))
}
