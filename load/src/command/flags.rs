//! The flags.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Arguments of `slice load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// What to do.
    #[command(subcommand)]
    pub workload: Workload,
}

/// Where an NFS server is: `HOST:PORT[:/EXPORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `HOST:PORT`.
    pub host_port: String,
    /// What to mount.
    pub export: String,
}

/// Flags of every workload.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The server. untar, affinity and bulk start ensembles of their own if it is not given
    #[arg(long, value_name = "HOST:PORT[:/EXPORT]", value_parser = place)]
    pub target: Option<Place>,
    /// Port of MOUNT, on the same host [default: the port of NFS]
    #[arg(long, value_name = "PORT")]
    pub mount_port: Option<u16>,
    /// Shorter times and smaller files: minutes in all; the report says so
    #[arg(long)]
    pub quick: bool,
    /// Seed of all that is drawn [default: drawn, and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// File for the result
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// File for the report: one page with charts, no other files
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Name of what is measured, in reports [default: the servers, if they are known]
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Directory of the `slice up` that is the target: its servers' CPU time is measured
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Processes of the target, if it is not ours: their CPU time is measured
    #[arg(long, value_name = "PID,PID", value_delimiter = ',', conflicts_with = "data")]
    pub server_pids: Vec<i32>,
    /// User to act for
    #[arg(long, default_value_t = 0)]
    pub uid: u32,
    /// Group to act for
    #[arg(long, default_value_t = 0)]
    pub gid: u32,
}

/// Flags of workloads that may start ensembles of their own.
#[derive(Debug, Clone, Args)]
pub struct OwnArgs {
    /// Directory for ensembles of the workload's own; on a disk, if durability is to cost what it costs [default: the system's
    /// directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// All servers of such an ensemble in one process, in place of a process each
    #[arg(long)]
    pub one_process: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Workload {
    /// The SFS 3.0 NFSv3 mix at evenly spaced loads, open loop: delivered load and latency; exit code 1 if any reply was wrong
    Sfs(SfsArgs),
    /// Source trees unpacked by 1 to 16 clients at once: time a client takes, by name policy
    Untar(UntarArgs),
    /// The same under mkdir switching, for affinities from 0 to 100 %; on ensembles of its own
    Affinity(AffinityArgs),
    /// Sequential writing and reading of large files, on 1 to 8 storage nodes: MiB/s
    Bulk(BulkArgs),
    /// Each procedure alone: calls a second, p50, p99, p99.9
    Single(SingleArgs),
    /// Makes one report of several results: curves side by side
    Report {
        /// Results (--json) of this or other runs
        #[arg(required = true, value_name = "RESULT")]
        files: Vec<PathBuf>,
        /// File for the report
        #[arg(long, value_name = "FILE")]
        html: PathBuf,
    },
}

/// Flags of `sfs`.
#[derive(Debug, Args)]
pub struct SfsArgs {
    /// Flags of every workload.
    #[command(flatten)]
    pub common: Common,
    /// The highest load, in operations a second [default: searched]
    #[arg(long, value_name = "OPS", value_parser = positive)]
    pub peak: Option<f64>,
    /// Loads, evenly spaced up to the peak
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub points: u32,
    /// MiB of files for each operation a second offered [default: 10, as the standard says; 0.05 with --quick]
    #[arg(long, value_name = "MIB", value_parser = positive)]
    pub mib_per_op: Option<f64>,
    /// Seconds before measuring, at each load [default: 300; 1 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub warmup: Option<f64>,
    /// Seconds of measuring, at each load [default: 300; 5 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub measure: Option<f64>,
    /// Connections
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub conns: u32,
    /// Leaves the files
    #[arg(long)]
    pub keep: bool,
}

/// Flags of `untar`.
#[derive(Debug, Args)]
pub struct UntarArgs {
    /// Flags of every workload.
    #[command(flatten)]
    pub common: Common,
    /// Ensembles of its own.
    #[command(flatten)]
    pub own: OwnArgs,
    /// Numbers of clients [default: 1,2,4,8,16; 1,4,16 with --quick]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub clients: Vec<u32>,
    /// Files of each client's tree [default: 36000, as the paper's; 150 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub files: Option<u32>,
    /// Policies of ensembles of its own
    #[arg(long, value_name = "P,P", value_delimiter = ',', default_value = "partition,mkdir:0.8,hash")]
    pub policies: Vec<String>,
    /// Directory servers of ensembles of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub dirservers: u32,
}

/// Flags of `affinity`.
#[derive(Debug, Args)]
pub struct AffinityArgs {
    /// Flags of every workload.
    #[command(flatten)]
    pub common: Common,
    /// Ensembles of its own.
    #[command(flatten)]
    pub own: OwnArgs,
    /// Numbers of clients [default: 1,4,8,16; 1,4,16 with --quick]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub clients: Vec<u32>,
    /// Affinities, in per cent [default: 0,25,50,75,90,100; 0,50,100 with --quick]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=100))]
    pub affinities: Vec<u32>,
    /// Files of each client's tree [default: 36000, as the paper's; 150 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub files: Option<u32>,
    /// Directory servers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub dirservers: u32,
}

/// Flags of `bulk`.
#[derive(Debug, Args)]
pub struct BulkArgs {
    /// Flags of every workload.
    #[command(flatten)]
    pub common: Common,
    /// Ensembles of its own.
    #[command(flatten)]
    pub own: OwnArgs,
    /// Storage nodes of ensembles of its own
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,2,4,8", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub nodes: Vec<u32>,
    /// Files at once, each over a connection of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub streams: u32,
    /// Calls in flight of each
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub depth: u32,
    /// MiB of each file [default: 1024; 64 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub mib: Option<u32>,
}

/// Flags of `single`.
#[derive(Debug, Args)]
pub struct SingleArgs {
    /// Flags of every workload.
    #[command(flatten)]
    pub common: Common,
    /// Connections
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub conns: u32,
    /// Callers on each connection
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub inflight: u32,
    /// Seconds of each procedure [default: 10; 1 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub measure: Option<f64>,
}

impl Workload {
    /// Flags that every workload has.
    #[must_use]
    pub const fn common(&self) -> Option<&Common> {
        match self {
            Self::Sfs(args) => Some(&args.common),
            Self::Untar(args) => Some(&args.common),
            Self::Affinity(args) => Some(&args.common),
            Self::Bulk(args) => Some(&args.common),
            Self::Single(args) => Some(&args.common),
            Self::Report { .. } => None,
        }
    }
}

/// A number above 0, and not beyond what a slip of the finger gives.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 1e9 => Ok(n),
        Ok(_) => Err("above 0, and at most 1e9".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// `HOST:PORT[:/EXPORT]`, where HOST may be an IPv6 address in brackets.
fn place(text: &str) -> Result<Place, String> {
    let wrong = || "give HOST:PORT or HOST:PORT:/EXPORT".to_owned();
    let (host_port, export) = match text.find(":/") {
        Some(at) => (text.get(..at).ok_or_else(wrong)?, text.get(at + 1..).ok_or_else(wrong)?),
        None => (text, "/"),
    };
    let (host, port) = host_port.rsplit_once(':').ok_or_else(wrong)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    Ok(Place { host_port: host_port.to_owned(), export: export.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_understood() {
        let given = |host_port: &str, export: &str| {
            Ok(Place { host_port: host_port.to_owned(), export: export.to_owned() })
        };
        assert_eq!(place("a:2049"), given("a:2049", "/"));
        assert_eq!(place("10.0.0.1:1:/x/y:/z"), given("10.0.0.1:1", "/x/y:/z"));
        assert_eq!(place("[::1]:2049:/x"), given("[::1]:2049", "/x"));
        for wrong in ["", "a", "a:/x", ":1", "a:b:/x", "a:99999"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
