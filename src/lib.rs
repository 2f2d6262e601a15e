//! The program `slice`: all roles, together or alone. `slice --help` says what there is.
//!
//! A library only so that `fuzz/` reaches what the program decodes, and tests the check that operators run; `main.rs` calls
//! [`main`], and nothing else is for others.
#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod admin;
mod agent;
mod checking;
mod cli;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod host;
mod hosted;
mod identity;
mod logging;
mod plan;
mod reach;
mod roles;
mod signals;
mod status;
mod store;
mod targets;
mod up;
mod watch;

use clap::Parser;
use cli::admin::AdminCommand;
use cli::config_file::Section;
use cli::{Cli, Command};
use error::{Error, Result};
use slice_proto::ids::Role;
use std::process::ExitCode;
use tokio::task::LocalSet;

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slice: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up(args) => {
            let args = args.with_file()?;
            roles::begin(&args.run)?;
            on_main_thread(up::run(args))
        }
        Command::Proxy(args) => {
            let args = roles::proxy::with_rules(*args)?;
            roles::begin(&args.run)?;
            on_main_thread(roles::proxy::run(args))
        }
        Command::Dirserver(args) => server(Role::Dir, args.with_file()?.server),
        Command::Smallfile(args) => server(Role::Small, args.with_file()?.server),
        Command::Blockstore(args) => server(Role::Block, args.with_file()?.server),
        Command::Coordinator(args) => {
            let args = args.with_file()?;
            roles::begin(&args.run)?;
            on_main_thread(roles::coordinator::run(args))
        }
        Command::Status(args) => on_main_thread(status::run(args)),
        Command::Admin(args) => match args.command {
            AdminCommand::Check(args) => on_main_thread(checking::run(args)),
            AdminCommand::NewIdentity(args) => identity::make(&args.file),
        },
        Command::Health(args) => on_main_thread(health::run(args)),
        Command::Load(args) => on_main_thread(cli::load::run(*args)),
    }
}

fn server(role: Role, args: cli::role::ServerArgs) -> Result<()> {
    roles::begin(&args.run)?;
    on_main_thread(roles::server::run(role, args))
}

/// Runs what does not serve clients: control plane, supervision, tools. Children are started on this thread, which
/// lives as long as the process, so that their parent-death signal means the process's death.
fn on_main_thread(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::Ended(format!("the system gives no event loop: {e}")))?;
    LocalSet::new().block_on(&runtime, work)
}
