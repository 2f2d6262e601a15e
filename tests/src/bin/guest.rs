//! Boots a stock client on a running server: a shell in the mounted directory, or a script.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use slice_tests::error::{Doing, Error};
use slice_tests::guest::{Mount, Spec};

/// A stock Linux NFS client under qemu, on a server that listens on this machine's loopback.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server's port, for NFS and MOUNT. Given again, the next one is mounted at /mnt2, and so on.
    #[arg(long)]
    port: Vec<u16>,
    /// The export to mount.
    #[arg(long, default_value = "/")]
    export: String,
    /// More mount options, such as nconnect=16.
    #[arg(long)]
    options: Option<String>,
    /// Runs this script in the mounted directory; without it, a shell on this terminal.
    #[arg(long)]
    script: Option<PathBuf>,
    /// Puts a program of this machine, with its libraries, into /usr/local/bin.
    #[arg(long)]
    program: Vec<PathBuf>,
    /// Puts the files of an installed Debian package into the guest.
    #[arg(long)]
    package: Vec<String>,
    /// Puts a file into the guest.
    #[arg(long, value_name = "HOST:GUEST")]
    file: Vec<String>,
    /// The guest's memory.
    #[arg(long, value_name = "MIB", default_value_t = 768)]
    memory: u32,
    /// The guest's processors.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// The most that a script may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let mut spec = Spec::new("interactive").memory_mib(arguments.memory).cpus(arguments.cpus);
    spec = spec.limit(Duration::from_secs(arguments.limit));
    for (i, port) in (1..).zip(&arguments.port) {
        let place = if i == 1 { "/mnt".to_owned() } else { format!("/mnt{i}") };
        let mount = Mount::new(*port).export(&arguments.export).at(&place);
        spec = spec.mount(match &arguments.options {
            Some(options) => mount.option(options),
            None => mount,
        });
    }
    for program in &arguments.program {
        spec = spec.program(program)?;
    }
    for package in arguments.package {
        spec.image().package(package.leak())?; // Once per run of this program.
    }
    for pair in &arguments.file {
        let (host, guest) = pair.split_once(':').unwrap_or((pair, pair));
        spec.image().file(host.as_ref(), guest)?;
    }
    let Some(script) = arguments.script else {
        return Ok(if spec.interact()? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    };
    let script = std::fs::read_to_string(&script).doing(|| format!("reading {}", script.display()))?;
    let outcome = spec.boot(&script)?.finish()?;
    print!("{}", outcome.log);
    for mark in &outcome.marks {
        println!("@@ {} {} {}", mark.name, mark.status, mark.text);
    }
    let exit = u8::try_from(outcome.exit).unwrap_or(u8::MAX);
    Ok(ExitCode::from(exit))
}
