//! Configuration from a TOML file: one section per command, entries named as the flags. Flags win.

use crate::error::{Error, Result};
use clap::{Args, Command};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Arguments of a command that may also stand in a file.
pub trait Section: Args + Serialize + DeserializeOwned {
    /// Name of the section: the command's.
    const NAME: &'static str;
    /// Entries that are no flags: lists of tables.
    const TABLES: &'static [&'static str];

    /// The file that was given.
    fn config(&self) -> Option<&Path>;

    /// The flags over what the file says.
    ///
    /// # Errors
    /// A sentence that names the file and the entry.
    fn with_file(self) -> Result<Self> {
        let Some(path) = self.config().map(Path::to_owned) else { return Ok(self) };
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        self.over(&text).map_err(|why| Error::usage(format!("{}: {why}", path.display())))
    }

    /// The flags over this text.
    ///
    /// # Errors
    /// A sentence.
    fn over(self, text: &str) -> std::result::Result<Self, String> {
        let one_line = |e: toml::de::Error| e.to_string().trim().replace('\n', " ");
        let mut file: toml::Table = text.parse().map_err(one_line)?;
        let mut merged = match file.remove(Self::NAME) {
            Some(toml::Value::Table(section)) => section,
            Some(_) => return Err(format!("[{}] is not a section", Self::NAME)),
            None => toml::Table::new(),
        };
        let known = Self::augment_args(Command::new(""));
        let flags: Vec<_> = known.get_arguments().filter_map(clap::Arg::get_long).collect();
        for key in merged.keys() {
            if !flags.contains(&key.as_str()) && !Self::TABLES.contains(&key.as_str()) {
                return Err(format!(
                    "[{}] has an entry {key:?}, which is no flag of `slice {0}`",
                    Self::NAME
                ));
            }
        }
        merged.extend(toml::Table::try_from(&self).map_err(|e| e.to_string())?);
        judge(known, &merged).map_err(|e| format!("[{}]: {e}", Self::NAME))?;
        Self::deserialize(merged).map_err(|e| format!("[{}]: {}", Self::NAME, one_line(e)))
    }
}

/// Reads entries as the flags that they are named as: what no flag takes, no file gives.
fn judge(flags: Command, entries: &toml::Table) -> std::result::Result<(), String> {
    let mut line = Vec::new();
    for (name, value) in entries {
        let values = match value {
            toml::Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            match value {
                toml::Value::Boolean(true) => line.push(format!("--{name}")),
                toml::Value::String(text) => line.push(format!("--{name}={text}")),
                toml::Value::Integer(number) => line.push(format!("--{name}={number}")),
                // No flag is of another kind: that is for who reads the whole section to say.
                _ => {}
            }
        }
    }
    let read = flags.no_binary_name(true).try_get_matches_from(line);
    let first_line = |e: clap::Error| e.to_string().lines().next().unwrap_or_default().to_owned();
    read.map(|_| ()).map_err(|e| first_line(e).trim_start_matches("error: ").to_owned())
}

/// For `skip_serializing_if`: a flag that was not given says nothing.
pub fn unset(flag: &bool) -> bool {
    !flag
}
