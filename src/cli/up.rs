//! Arguments of `slice up`, and of a format.

use super::config_file::{Section, unset};
use super::exports::ExportArgs;
use super::role::RunArgs;
use super::values::{self, Engine, Mode, Owner, Policy};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What is decided once, at format.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct FormatArgs {
    /// Directory servers; fixed at format [default: 1]
    #[arg(long, value_name = "N", value_parser = values::servers)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirservers: Option<usize>,
    /// Small-file servers; fixed at format [default: 1]
    #[arg(long, value_name = "N", value_parser = values::servers)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smallfiles: Option<usize>,
    /// Block storage nodes; fixed at format [default: 2]
    #[arg(long, value_name = "N", value_parser = values::servers)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blockstores: Option<usize>,
    /// How names are spread over directory servers: partition (all at one), mkdir or mkdir:AFFINITY (a new directory stays
    /// with its parent with that probability), hash (each name on its own); fixed at format [default: mkdir:0.8]
    #[arg(long, value_name = "POLICY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Owner of the root directory when it is made [default: who formats]
    #[arg(long, value_name = "UID:GID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_owner: Option<Owner>,
    /// Mode of the root directory when it is made [default: 0755; 1777 if root formats and root is squashed]
    #[arg(long, value_name = "MODE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_mode: Option<Mode>,
    /// Volumes from the file; none makes one at `/`.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume: Vec<VolumeEntry>,
}

/// A volume of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VolumeEntry {
    /// `/` or `/name`.
    pub path: String,
    /// Its policy, if not the one for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

/// Arguments of `slice up`.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UpArgs {
    /// Directory of everything; a second start finds it all again [default: ./slice-data]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Where NFS, MOUNT and portmap answer [default: 127.0.0.1:2049]
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Where portmap answers besides, over TCP and UDP; 0.0.0.0:111 lets clients mount without giving a port
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::listen)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portmap: Option<SocketAddr>,
    /// What is decided at format.
    #[command(flatten)]
    #[serde(flatten)]
    pub plan: FormatArgs,
    /// A process for every server, restarted when it dies, in place of all in one
    #[arg(long)]
    #[serde(skip_serializing_if = "unset")]
    pub separate: bool,
    /// Engine of the stores: fjall, or sled, which survives a killed process but not a power cut; for comparison; fixed
    /// at format [default: fjall]
    #[arg(long, value_name = "ENGINE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Engine>,
    /// Seconds after which an intention that was not completed is taken over [default: 30]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub take_over_after: Option<u32>,
    /// Who may do what.
    #[command(flatten)]
    #[serde(flatten)]
    pub exports: ExportArgs,
    /// How it runs.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
}

impl Section for UpArgs {
    const NAME: &'static str = "up";
    const TABLES: &'static [&'static str] = &["export", "volume"];

    fn config(&self) -> Option<&Path> {
        self.run.config.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let flags = UpArgs {
            data: Some("/flag".into()),
            plan: FormatArgs { dirservers: Some(3), ..FormatArgs::default() },
            run: RunArgs {
                threads: Some(2),
                config: Some("x".into()),
                parent: Some(7),
                ..RunArgs::default()
            },
            ..UpArgs::default()
        };
        let file = r#"
            [up]
            data = "/file"
            listen = "127.0.0.1:3049"
            dirservers = 2
            smallfiles = 2
            policy = "hash"
            root-mode = "1777"
            separate = true
            allow = ["10.0.0.0/8"]
            [[up.volume]]
            path = "/a"
            policy = "partition"
            [proxy]
            listen = "127.0.0.1:9"
        "#;
        let args = flags.over(file).unwrap();
        assert_eq!(args.data.as_deref(), Some(Path::new("/flag")));
        assert_eq!((args.plan.dirservers, args.plan.smallfiles), (Some(3), Some(2)));
        assert_eq!(args.listen.unwrap().port(), 3049);
        assert_eq!(args.plan.policy.unwrap().to_string(), "hash");
        assert_eq!(args.plan.root_mode, Some(Mode(0o1777)));
        assert!(args.separate);
        assert_eq!(args.exports.allow, ["10.0.0.0/8"]);
        assert_eq!((args.run.threads, args.run.parent), (Some(2), Some(7)));
        assert_eq!(args.run.config.as_deref(), Some(Path::new("x")));
        assert_eq!(args.plan.volume[0].path, "/a");
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named() {
        for (file, expected) in [
            ("[up]\nlistem = 1", "\"listem\", which is no flag"),
            ("[up]\nlisten = \"x\"", "[up]:"),
            ("[up]\npolicy = \"x\"", "partition, mkdir"),
            ("[up]\ndirservers = 0", "from 1 to 256"),
            ("[up]\nthreads = 2000", "1..=1024"),
            ("[up]\nall-squash = true\nno-root-squash = true", "cannot be used with"),
            ("[up]\nallow = [1]", "[up]:"),
            ("[up]\nseparate = \"\"", "[up]:"),
            ("up = 1", "[up] is not a section"),
            ("[up", "TOML parse error"),
        ] {
            let error = UpArgs::default().over(file).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(UpArgs::default().over("").is_ok());
    }
}
