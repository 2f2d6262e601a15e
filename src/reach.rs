//! How a tool finds the coordinator and the ensemble's secret: from the directory of a running `slice up`, or from
//! flags.

use crate::cli::role::ReachArgs;
use crate::error::{Error, Result};
use crate::identity;
use crate::up::ensemble_file::EnsembleFile;
use slice_coordinator::client::Client;
use slice_proto::secret::Identity;
use slice_rpc::clock::SystemClock;
use std::path::Path;
use std::sync::Arc;

/// Where the control plane is, and the ensemble's secret. Flags win over the directory.
///
/// # Errors
/// A sentence if neither tells.
pub fn reach(data: Option<&Path>, args: &ReachArgs) -> Result<(String, Identity)> {
    let coordinator = match (&args.coordinator, data) {
        (Some(address), _) => address.clone(),
        (None, Some(dir)) => EnsembleFile::read(dir)?.control.to_string(),
        (None, None) => {
            return Err(Error::usage(
                "which ensemble? give --data DIR of a running `slice up`, or --coordinator HOST:PORT and --identity FILE",
            ));
        }
    };
    let identity = match (&args.identity, data) {
        (Some(file), _) => identity::read(file)?,
        (None, Some(dir)) => identity::read(&dir.join("identity"))?,
        (None, None) => {
            return Err(Error::usage(
                "--coordinator needs --identity FILE beside it: the ensemble's id and secret",
            ));
        }
    };
    Ok((coordinator, identity))
}

/// A client of the coordinator.
///
/// # Errors
/// A sentence.
pub fn client(data: Option<&Path>, args: &ReachArgs) -> Result<Client> {
    let (coordinator, identity) = reach(data, args)?;
    Ok(Client::new(&coordinator, identity, Arc::new(SystemClock))?)
}
