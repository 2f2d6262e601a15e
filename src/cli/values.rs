//! Values of flags and of configuration entries, each with a sentence for what is wrong with it.

use serde::{Deserialize, Serialize};
use slice_proto::ids::ServerId;
use slice_proto::table::NamePolicy;
use slice_store::EngineKind;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Affinity of `mkdir` without one; docs/decisions/0004-defaults.md.
const DEFAULT_AFFINITY_PPM: u32 = 800_000;

/// Makes a type usable in flags and, as a string, in TOML and JSON.
macro_rules! by_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

/// A name policy: `partition`, `mkdir[:AFFINITY]` or `hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Policy(pub NamePolicy);
by_text!(Policy);

impl Default for Policy {
    fn default() -> Self {
        Self(NamePolicy::MkdirSwitching { affinity_ppm: DEFAULT_AFFINITY_PPM })
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, affinity) = match text.split_once(':') {
            Some((name, affinity)) => (name, Some(affinity)),
            None => (text, None),
        };
        Ok(Self(match (name, affinity) {
            ("partition", None) => NamePolicy::Partition,
            ("hash", None) => NamePolicy::Hash,
            ("mkdir", None) => return Ok(Self::default()),
            ("mkdir", Some(affinity)) => NamePolicy::MkdirSwitching { affinity_ppm: ppm(affinity)? },
            _ => return Err("give partition, mkdir, mkdir:AFFINITY (0 to 1) or hash".into()),
        }))
    }
}

fn ppm(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        // The product is between 0 and 1,000,000.
        Ok(share) if (0.0..=1.0).contains(&share) => Ok((share * 1e6).round() as u32),
        _ => Err(format!("the affinity {text:?} is not a number from 0 to 1, as in mkdir:0.8")),
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            NamePolicy::Partition => f.write_str("partition"),
            NamePolicy::Hash => f.write_str("hash"),
            NamePolicy::MkdirSwitching { affinity_ppm } => {
                write!(f, "mkdir:{}", f64::from(affinity_ppm) / 1e6)
            }
        }
    }
}

/// Which engine keeps a store: `fjall` or `sled`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Engine(pub EngineKind);
by_text!(Engine);

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|e: slice_store::Error| e.to_string())
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who owns a volume's root directory: `UID:GID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}
by_text!(Owner);

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (uid, gid) = text.split_once(':')?;
            Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        };
        parse().ok_or_else(|| "give a user id and a group id, as in 1000:1000".into())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// Permission bits in octal: `0755`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(pub u32);
by_text!(Mode);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Self(mode)),
            _ => Err("give permission bits in octal, as in 0755 or 1777".into()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// A server's id, in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(pub ServerId);
by_text!(Id);

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = u64::from_str_radix(text, 16).ok().filter(|id| *id != 0);
        id.map(|id| Self(ServerId(id))).ok_or_else(|| "give an id in hexadecimal".into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads an address to listen on.
///
/// # Errors
/// A sentence.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give an IP address and a port, as in 127.0.0.1:2049 or [::]:2049".into())
}

/// Reads the address of another server.
///
/// # Errors
/// A sentence.
pub fn host_port(text: &str) -> Result<String, String> {
    let fine = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|p| p != 0)
    });
    if fine {
        Ok(text.to_owned())
    } else {
        Err("give a host and a port, as in node1:2051 or 10.0.0.1:2051".into())
    }
}

/// Reads a number of servers.
///
/// # Errors
/// A sentence.
pub fn servers(text: &str) -> Result<usize, String> {
    let max = slice_proto::ids::SITES_PER_ROLE;
    match text.parse() {
        Ok(n) if (1..=max).contains(&n) => Ok(n),
        _ => Err(format!("give a number from 1 to {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_written() {
        for text in ["partition", "hash", "mkdir:0.5", "mkdir:0", "mkdir:1"] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
        assert_eq!("mkdir".parse::<Policy>().unwrap(), Policy::default());
        for text in ["", "mkdir:2", "mkdir:x", "hash:1", "Partition"] {
            assert!(text.parse::<Policy>().is_err(), "{text}");
        }
    }

    #[test]
    fn owners_modes_and_addresses() {
        assert_eq!("10:20".parse(), Ok(Owner { uid: 10, gid: 20 }));
        assert!("root".parse::<Owner>().is_err());
        assert_eq!("1777".parse::<Mode>().unwrap().to_string(), "1777");
        assert_eq!("0755".parse(), Ok(Mode(0o755)));
        assert!("999".parse::<Mode>().is_err());
        assert!("10000".parse::<Mode>().is_err());
        assert!(listen("2049").is_err());
        assert_eq!(host_port("node1:2051").unwrap(), "node1:2051");
        for wrong in ["node1", ":1", "a b:1", "node1:0", "node1:70000"] {
            assert!(host_port(wrong).is_err(), "{wrong}");
        }
    }
}
