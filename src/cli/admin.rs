//! Arguments of `slice admin`.

use super::role::ReachArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Arguments of `slice admin`.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum AdminCommand {
    /// Checks that all servers tell the same story: names, attributes, link counts, sizes, bytes; says what can be repaired,
    /// and with --repair does so. Exit code 0 if all is well (at the end), 1 if not, 2 if it could not be found out
    Check(CheckArgs),
    /// Makes the file with the id and the secret of an ensemble that is to come, for those who hand secrets out
    /// themselves; `slice coordinator --format --identity FILE` then uses it
    NewIdentity(NewIdentityArgs),
}

/// Arguments of `slice admin new-identity`.
#[derive(Debug, Clone, Args)]
pub struct NewIdentityArgs {
    /// The file, which must not be there yet; - for standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Arguments of `slice admin check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Directory of a running `slice up`
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The coordinator.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Seconds that the ensemble may take to settle: until nothing is owed, held or intended
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub settle: u32,
    /// Repairs what can be repaired without a guess, and checks again; asks nothing. Clients may be at work
    #[arg(long)]
    pub repair: bool,
    /// Says what --repair would do, and changes nothing: as without --repair
    #[arg(long, conflicts_with = "repair")]
    pub dry_run: bool,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}
