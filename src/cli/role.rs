//! Arguments of each role alone.

use super::config_file::Section;
use super::exports::ExportArgs;
use super::up::FormatArgs;
use super::values::{self, Engine};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where a µproxy listens by default: the NFS port, for this machine only.
pub const PROXY_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 2049);
/// Where the coordinator's control plane listens by default.
pub const CONTROL_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 2051);
/// Where the other servers listen by default: a port of the system's choice, which the coordinator tells the others.
pub const ANY_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line, for programs.
    Json,
}

impl LogFormat {
    /// As the flag takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// How any role runs.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RunArgs {
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u16>,
    /// File for the log, in place of standard error; renamed to FILE.1 when it is 8 MiB long. RUST_LOG says what is
    /// logged [default: warn]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "SLICE_LOG_FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// Where metrics answer (GET /metrics, for Prometheus), and at the coordinator the status page (GET /)
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// TOML file with a section named as the command; its entries are named as the flags, and flags win
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// Process that this one dies with.
    #[arg(long, hide = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
}

impl RunArgs {
    /// Number of worker threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }
}

/// How the coordinator is found.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ReachArgs {
    /// Where the coordinator's control plane listens
    #[arg(long, value_name = "HOST:PORT", value_parser = values::host_port)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<String>,
    /// File with the ensemble's id and secret, made by `slice coordinator --format` or `slice up` (DIR/identity)
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
}

/// Arguments of `slice proxy`.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ProxyArgs {
    /// Where NFS, MOUNT and portmap answer [default: 127.0.0.1:2049]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Address at which clients reach it, for `slice status`, if that is not --listen
    #[arg(long, value_name = "HOST:PORT", value_parser = values::host_port)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Where portmap answers besides, over TCP and UDP; 0.0.0.0:111 lets clients mount without giving a port
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portmap: Option<SocketAddr>,
    /// Directory of a running `slice up`: tells coordinator, identity and export rules
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// The coordinator.
    #[command(flatten)]
    #[serde(flatten)]
    pub reach: ReachArgs,
    /// Who may do what.
    #[command(flatten)]
    #[serde(flatten)]
    pub exports: ExportArgs,
    /// Its id, in hexadecimal; drawn if not given.
    #[arg(long, hide = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<values::Id>,
    /// How it runs.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
}

/// Arguments of the servers that own sites.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ServerArgs {
    /// Directory of its store; made when the server first joins
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Where it listens for µproxies and other servers [default: 127.0.0.1 and a free port]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Address at which the others reach it, if that is not --listen
    #[arg(long, value_name = "HOST:PORT", value_parser = values::host_port)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// The coordinator.
    #[command(flatten)]
    #[serde(flatten)]
    pub reach: ReachArgs,
    /// Engine of its store: fjall, or sled, which survives a killed process but not a power cut; for comparison
    /// [default: fjall]
    #[arg(long, value_name = "ENGINE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Engine>,
    /// How it runs.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
}

/// A server's arguments under its own command, so that each has its section of the file.
macro_rules! server_command {
    ($(#[$doc:meta])* $name:ident, $section:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
        pub struct $name {
            /// The same for each.
            #[command(flatten)]
            #[serde(flatten)]
            pub server: ServerArgs,
        }

        impl Section for $name {
            const NAME: &'static str = $section;
            const TABLES: &'static [&'static str] = &[];

            fn config(&self) -> Option<&Path> {
                self.server.run.config.as_deref()
            }
        }
    };
}

server_command!(
    /// Arguments of `slice dirserver`.
    DirArgs,
    "dirserver"
);
server_command!(
    /// Arguments of `slice smallfile`.
    SmallArgs,
    "smallfile"
);
server_command!(
    /// Arguments of `slice blockstore`.
    BlockArgs,
    "blockstore"
);

/// Arguments of `slice coordinator`.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CoordinatorArgs {
    /// Directory of its store and its intention log
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Where it listens for intentions [default: 127.0.0.1 and a free port]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Address at which the others reach --listen, if it is another
    #[arg(long, value_name = "HOST:PORT", value_parser = values::host_port)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Where its control plane listens: what all others are given as --coordinator [default: 127.0.0.1:2051]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<SocketAddr>,
    /// File with the ensemble's id and secret; made by --format if it is not there [default: DIR/identity]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// Makes a new ensemble if DIR holds none; the servers that then come are its members for good
    #[arg(long)]
    #[serde(skip_serializing_if = "super::config_file::unset")]
    pub format: bool,
    /// Seconds after which an intention that was not completed is taken over [default: 30]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub take_over_after: Option<u32>,
    /// What is decided at format.
    #[command(flatten)]
    #[serde(flatten)]
    pub plan: FormatArgs,
    /// Engine of its store: fjall or sled [default: fjall]
    #[arg(long, value_name = "ENGINE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Engine>,
    /// How it runs.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
}

impl Section for ProxyArgs {
    const NAME: &'static str = "proxy";
    const TABLES: &'static [&'static str] = &["export"];

    fn config(&self) -> Option<&Path> {
        self.run.config.as_deref()
    }
}

impl Section for CoordinatorArgs {
    const NAME: &'static str = "coordinator";
    const TABLES: &'static [&'static str] = &["volume"];

    fn config(&self) -> Option<&Path> {
        self.run.config.as_deref()
    }
}
