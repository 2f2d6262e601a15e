//! What a µproxy is told: where to listen, who may do what, and where FSSTAT's figures come from.

use crate::error::Error;
use slice_proto::ids::ServerId;
use slice_proto::rpc_msg::Cred;
use slice_proto::secret::Identity;
use slice_proto::table::RoutingTable;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// User and group that squashed callers become unless the export says otherwise: `nobody`.
pub const ANON_ID: u32 = 65_534;

/// Space and files of the whole ensemble, for FSSTAT. Figures are sums over servers; `available` is weighted by the
/// fullest one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes free.
    pub free: u64,
    /// Bytes that a client may still write.
    pub available: u64,
    /// Files that exist.
    pub files: u64,
}

/// Tells FSSTAT's figures: the program knows the heartbeats, the µproxy does not.
pub trait SpaceSource: Send + Sync + 'static {
    /// The newest figures. Must not block.
    fn space(&self) -> Space;
}

impl SpaceSource for Space {
    fn space(&self) -> Space {
        *self
    }
}

/// Which callers become the anonymous user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Squash {
    /// User 0 and group 0: the default.
    #[default]
    Root,
    /// Everyone.
    All,
    /// Nobody.
    None,
}

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

/// One export rule. The first rule that fits volume and client decides; none: no access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Path of the volume (`/` or `/name`); `*` means every volume.
    pub path: String,
    /// Clients that it is for; empty means all.
    pub clients: Vec<Network>,
    /// Mutating procedures answer ROFS.
    pub read_only: bool,
    /// Who is squashed.
    pub squash: Squash,
    /// User that squashed callers become.
    pub anon_uid: u32,
    /// Group that squashed callers become.
    pub anon_gid: u32,
}

/// What a client may do with a volume: the part of its export rule that every request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Mutating procedures answer ROFS.
    pub read_only: bool,
    /// Who is squashed.
    pub squash: Squash,
    /// User that squashed callers become.
    pub anon_uid: u32,
    /// Group that squashed callers become.
    pub anon_gid: u32,
}

/// All export rules, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exports(pub Vec<Export>);

/// How a µproxy is set up.
pub struct ProxyConfig {
    /// TCP (and, for MOUNT, UDP) address on which NFS, MOUNT and portmap answer.
    pub listen: SocketAddr,
    /// Where portmap answers over TCP and UDP besides, if asked for: port 111 or another. If the port is taken (a port
    /// mapper runs already), NFS and MOUNT are registered there instead.
    pub portmap: Option<SocketAddr>,
    /// The ensemble's id and secret: checks handles and proves who we are.
    pub identity: Identity,
    /// This µproxy's own id, drawn at random when it starts.
    pub id: ServerId,
    /// Who may do what.
    pub exports: Exports,
    /// FSSTAT's figures.
    pub space: Arc<dyn SpaceSource>,
}

// === impl Network ===

impl Network {
    /// Reads `address` or `address/prefix`.
    ///
    /// # Errors
    /// [`Error::Export`] with a sentence if it is neither.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong =
            || Error::Export(format!("client network {text:?} is neither an address nor address/prefix"));
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = ip.trim().parse().map_err(|_| wrong())?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(p) => p.trim().parse().ok().filter(|p| *p <= bits).ok_or_else(wrong)?,
            None => bits,
        };
        Ok(Self { base, prefix })
    }

    /// Whether `ip` lies in it. An IPv4 address that came in over an IPv6 socket counts as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let shift = |bits: u32| bits.saturating_sub(u32::from(self.prefix));
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

// === impl Export ===

impl Default for Export {
    /// Every volume, to everyone, writable, root squashed.
    fn default() -> Self {
        Self {
            path: "*".to_owned(),
            clients: Vec::new(),
            read_only: false,
            squash: Squash::Root,
            anon_uid: ANON_ID,
            anon_gid: ANON_ID,
        }
    }
}

impl Export {
    /// Whether this rule is for `client` at the volume mounted by `path`.
    #[must_use]
    pub fn fits(&self, path: &str, client: IpAddr) -> bool {
        (self.path == "*" || self.path == path)
            && (self.clients.is_empty() || self.clients.iter().any(|n| n.contains(client)))
    }

    const fn rule(&self) -> Rule {
        Rule {
            read_only: self.read_only,
            squash: self.squash,
            anon_uid: self.anon_uid,
            anon_gid: self.anon_gid,
        }
    }
}

// === impl Exports ===

impl Default for Exports {
    fn default() -> Self {
        Self(vec![Export::default()])
    }
}

impl Exports {
    /// What `client` may do with the volume mounted by `path`; `None` if nothing.
    #[must_use]
    pub fn rule(&self, path: &str, client: IpAddr) -> Option<Rule> {
        self.0.iter().find(|e| e.fits(path, client)).map(Export::rule)
    }

    /// What `client` may do with each volume of `table`, by volume number.
    #[must_use]
    pub fn rules(&self, table: &RoutingTable, client: IpAddr) -> Vec<Option<Rule>> {
        table.volumes.iter().map(|v| self.rule(&v.path, client)).collect()
    }
}

// === impl Rule ===

impl Rule {
    /// Whom a call acts for under this rule; as knfsd does, group 0 is squashed wherever it stands.
    #[must_use]
    pub fn squashed(&self, cred: Cred) -> Cred {
        let mut out = cred;
        match self.squash {
            Squash::None => {}
            Squash::All => {
                (out.uid, out.gid) = (self.anon_uid, self.anon_gid);
                out.gids.as_mut_slice().fill(self.anon_gid);
            }
            Squash::Root => {
                if out.uid == 0 {
                    out.uid = self.anon_uid;
                }
                if out.gid == 0 {
                    out.gid = self.anon_gid;
                }
                for gid in out.gids.as_mut_slice().iter_mut().filter(|g| **g == 0) {
                    *gid = self.anon_gid;
                }
            }
        }
        out
    }

    /// The anonymous caller: what AUTH_NONE becomes.
    #[must_use]
    pub fn anonymous(&self) -> Cred {
        Cred { uid: self.anon_uid, gid: self.anon_gid, ..Cred::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::rpc_msg::Gids;

    #[test]
    fn networks_contain_what_their_prefix_says() {
        let net = Network::parse("10.1.0.0/16").unwrap();
        assert!(net.contains("10.1.2.3".parse().unwrap()));
        assert!(net.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!net.contains("10.2.0.1".parse().unwrap()));
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(!Network::parse("0.0.0.0/0").unwrap().contains("fd00::1".parse().unwrap()));
        assert!(Network::parse("fd00::/8").unwrap().contains("fd12::1".parse().unwrap()));
        assert!(Network::parse("10.0.0.1").unwrap().contains("10.0.0.1".parse().unwrap()));
        for wrong in ["", "10.0.0.0/33", "x/8", "10.0.0.0/-1"] {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn root_is_squashed_wherever_it_stands_and_others_are_not() {
        let rule = Export::default().rule();
        let root = Cred { uid: 0, gid: 0, gids: Gids::new(&[0, 5]) };
        assert_eq!(rule.squashed(root), Cred { uid: ANON_ID, gid: ANON_ID, gids: Gids::new(&[ANON_ID, 5]) });
        let user = Cred { uid: 1000, gid: 1000, gids: Gids::new(&[27]) };
        assert_eq!(rule.squashed(user), user);
        let all = Rule { squash: Squash::All, ..rule };
        assert_eq!(all.squashed(user), Cred { uid: ANON_ID, gid: ANON_ID, gids: Gids::new(&[ANON_ID]) });
        assert_eq!(Rule { squash: Squash::None, ..rule }.squashed(root), root);
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let exports = Exports(vec![
            Export {
                path: "/a".into(),
                clients: vec![Network::parse("10.0.0.0/8").unwrap()],
                ..Export::default()
            },
            Export { path: "/a".into(), read_only: true, ..Export::default() },
        ]);
        assert!(!exports.rule("/a", "10.0.0.1".parse().unwrap()).unwrap().read_only);
        assert!(exports.rule("/a", "11.0.0.1".parse().unwrap()).unwrap().read_only);
        assert!(exports.rule("/b", "10.0.0.1".parse().unwrap()).is_none());
    }
}
