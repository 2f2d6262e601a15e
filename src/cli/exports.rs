//! Who may do what with which volume.

use super::config_file::unset;
use crate::error::{Error, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use slice_proxy::{ANON_ID, Export, Exports, Network, Squash};

/// Export rules: flags make one rule for every volume; a file may list several as `[[SECTION.export]]`.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ExportArgs {
    /// Lets root be root; by default it becomes nobody
    #[arg(long)]
    #[serde(skip_serializing_if = "unset")]
    pub no_root_squash: bool,
    /// Makes every user the anonymous one
    #[arg(long, conflicts_with = "no_root_squash")]
    #[serde(skip_serializing_if = "unset")]
    pub all_squash: bool,
    /// User that squashed users become [default: 65534]
    #[arg(long, value_name = "UID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_uid: Option<u32>,
    /// Group that squashed users become [default: 65534]
    #[arg(long, value_name = "GID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_gid: Option<u32>,
    /// Refuses every change
    #[arg(long)]
    #[serde(skip_serializing_if = "unset")]
    pub read_only: bool,
    /// Network whose clients may mount, as in 10.0.0.0/8; may be given several times [default: every client]
    #[arg(long, value_name = "NETWORK")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Rules from the file, in order; the first that fits decides.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub export: Vec<Rule>,
}

/// One rule of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rule {
    /// The volume's path; `*` for every one.
    #[serde(default = "every")]
    pub path: String,
    /// Networks whose clients it is for; none for all.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Refuses every change.
    #[serde(default)]
    pub read_only: bool,
    /// `root`, `all` or `none`.
    #[serde(default = "root")]
    pub squash: String,
    /// User that squashed users become.
    #[serde(default = "nobody")]
    pub anon_uid: u32,
    /// Group that squashed users become.
    #[serde(default = "nobody")]
    pub anon_gid: u32,
}

fn every() -> String {
    "*".into()
}

fn root() -> String {
    "root".into()
}

const fn nobody() -> u32 {
    ANON_ID
}

fn networks(allow: &[String]) -> Result<Vec<Network>> {
    let parse = |text: &String| Network::parse(text).map_err(|e| Error::usage(e.to_string()));
    allow.iter().map(parse).collect()
}

impl Rule {
    fn export(&self) -> Result<Export> {
        let squash = match self.squash.as_str() {
            "root" => Squash::Root,
            "all" => Squash::All,
            "none" => Squash::None,
            other => return Err(Error::usage(format!("squash = {other:?}: give root, all or none"))),
        };
        Ok(Export {
            path: self.path.clone(),
            clients: networks(&self.allow)?,
            read_only: self.read_only,
            squash,
            anon_uid: self.anon_uid,
            anon_gid: self.anon_gid,
        })
    }
}

impl ExportArgs {
    /// The rules: those of the file if there are any, else one made of the flags.
    ///
    /// # Errors
    /// A sentence about a network, or about flags beside the file's rules.
    pub fn exports(&self) -> Result<Exports> {
        if self.export.is_empty() {
            return Ok(Exports(vec![self.rule().export()?]));
        }
        let flags = self.no_root_squash || self.all_squash || self.read_only || !self.allow.is_empty();
        if flags || self.anon_uid.is_some() || self.anon_gid.is_some() {
            return Err(Error::usage(
                "the file lists export rules: put squashing, read-only and networks into them, not into flags",
            ));
        }
        self.export.iter().map(Rule::export).collect::<Result<_>>().map(Exports)
    }

    /// The one rule that the flags make.
    fn rule(&self) -> Rule {
        let squash = match (self.no_root_squash, self.all_squash) {
            (_, true) => "all",
            (true, false) => "none",
            (false, false) => "root",
        };
        Rule {
            path: every(),
            allow: self.allow.clone(),
            read_only: self.read_only,
            squash: squash.into(),
            anon_uid: self.anon_uid.unwrap_or(ANON_ID),
            anon_gid: self.anon_gid.unwrap_or(ANON_ID),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_make_one_rule() {
        let args = ExportArgs {
            no_root_squash: true,
            anon_uid: Some(5),
            allow: vec!["10.0.0.0/8".into()],
            ..ExportArgs::default()
        };
        let Exports(rules) = args.exports().unwrap();
        assert_eq!((rules.len(), rules[0].squash, rules[0].anon_uid), (1, Squash::None, 5));
        assert_eq!(ExportArgs::default().exports().unwrap(), Exports::default());
    }

    #[test]
    fn wrong_networks_and_squashes_get_a_sentence() {
        let args = ExportArgs { allow: vec!["10.0.0.0/99".into()], ..ExportArgs::default() };
        assert!(args.exports().unwrap_err().to_string().contains("10.0.0.0/99"));
    }
}
