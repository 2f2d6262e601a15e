//! The command line.

pub mod admin;
pub mod config_file;
pub mod exports;
pub mod load;
pub mod role;
pub mod up;
pub mod values;

use clap::{Parser, Subcommand};

/// One NFSv3 server to its clients, many servers behind.
#[derive(Debug, Parser)]
#[command(name = "slice", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a whole ensemble on this machine, and prints how to mount it
    Up(Box<up::UpArgs>),
    /// Runs a µproxy: what NFS clients mount
    Proxy(Box<role::ProxyArgs>),
    /// Runs a directory server: names and attributes
    Dirserver(Box<role::DirArgs>),
    /// Runs a small-file server: the first 64 KiB of every file
    Smallfile(Box<role::SmallArgs>),
    /// Runs a block storage node: bytes from 64 KiB on
    Blockstore(Box<role::BlockArgs>),
    /// Runs the coordinator: membership, routing table, intention log
    Coordinator(Box<role::CoordinatorArgs>),
    /// Shows the ensemble: servers, sites, epochs, operations, space
    Status(crate::status::StatusArgs),
    /// Looks after a whole ensemble
    Admin(admin::AdminArgs),
    /// Asks whether a server answers; exit code 0 if it does
    Health(crate::health::HealthArgs),
    /// Loads an NFSv3 server, this or another, and reports how it fares
    Load(Box<slice_load::command::LoadArgs>),
}
