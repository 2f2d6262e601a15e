//! The project's chores. `cargo xtask test` is the test command: it sets a fresh machine up as far as it may, runs
//! everything, and closes with what ran, what failed and what did not run, and why.
#![forbid(unsafe_code)]

mod command;
mod error;
mod libtest;
mod packages;
mod programs;
mod source;
mod stock;
mod summary;
mod test;
mod tools;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::command::{cargo, run};
use crate::error::Error;

/// Chores of the Slice workspace.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Runs all tests: format, lints, docs, unit and ensemble tests, then suites in a stock Linux client under qemu.
    Test(test::Options),
    /// Format, lints and docs, without changing a file of the source tree.
    Check,
    /// Formats the source and applies what clippy can mend by itself.
    Fix,
    /// Boots a stock Linux client on a running server: a shell in the mounted directory, or a script (see --help).
    #[command(disable_help_flag = true)]
    Guest {
        /// Arguments of the guest.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Test(options) => test::run(&options),
        Chore::Check => test::check(),
        Chore::Fix => fix(),
        Chore::Guest { arguments } => guest(arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fix() -> Result<bool, Error> {
    let mut clippy =
        cargo(["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"]);
    Ok(run(&mut clippy)? && run(&mut cargo(["fmt", "--all"]))?)
}

fn guest(arguments: Vec<OsString>) -> Result<bool, Error> {
    let mut guest = cargo(["run", "--quiet", "--package", "slice-tests", "--bin", "guest", "--"]);
    run(guest.args(arguments))
}
