//! `slice load`: the workloads of the crate `slice-load`, with this program for ensembles of their own.

use crate::error::{Error, Result};
use slice_load::command::{self, Ended, LoadArgs};

/// Runs it.
///
/// # Errors
/// A sentence if there are no figures, if it was stopped, or if any reply was wrong.
pub async fn run(args: LoadArgs) -> Result<()> {
    let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
    match command::run(args, &program).await {
        Ok(Ended::Well) => Ok(()),
        Ok(Ended::Stopped) => Err(Error::Load("ended early: the figures are not complete".into())),
        Ok(Ended::Wrong(n)) => Err(Error::Load(format!("{n} replies were wrong"))),
        Err(error) => Err(Error::Load(error.to_string())),
    }
}
