//! A directory of a test's own, and who acts in it.

use std::net::SocketAddr;

use slice_load::Client;
use slice_load::client::{Fh, Page};
use slice_proto::nfs3::{CookieVerf, CreateHow, Fattr3, NfsStat3, NfsTime3, Sattr3, TimeHow, access};
use slice_proto::rpc_msg::{Cred, Gids};

use super::answer::Expect;
use super::hosted::Plan;

/// Where a test acts.
#[derive(Debug)]
pub struct Stage {
    /// The superuser, as far as the export lets him.
    pub c: Client,
    /// The export's root.
    pub root: Fh,
    /// A directory for this test alone, writable by all.
    pub dir: Fh,
    /// Where the µproxy answers.
    pub addr: SocketAddr,
    /// Where portmap answers besides.
    pub portmap: Option<SocketAddr>,
    /// What was started.
    pub plan: Plan,
}

/// Bytes of a READDIR reply that Linux asks for.
pub const PAGE: u32 = 32 << 10;

/// Attributes with these permission bits.
#[must_use]
pub fn mode(mode: u32) -> Sattr3 {
    Sattr3 { mode: Some(mode), ..Sattr3::default() }
}

/// Attributes with this size.
#[must_use]
pub fn size(size: u64) -> Sattr3 {
    Sattr3 { size: Some(size), ..Sattr3::default() }
}

/// Attributes with these times, in seconds.
#[must_use]
pub fn times(atime: u32, mtime: u32) -> Sattr3 {
    let at = |seconds| TimeHow::Client(NfsTime3 { seconds, nseconds: 0 });
    Sattr3 { atime: at(atime), mtime: at(mtime), ..Sattr3::default() }
}

/// Attributes with this owner.
#[must_use]
pub fn owner(uid: u32, gid: u32) -> Sattr3 {
    Sattr3 { uid: Some(uid), gid: Some(gid), ..Sattr3::default() }
}

#[must_use]
pub fn user(uid: u32, gid: u32, gids: &[u32]) -> Cred {
    Cred { uid, gid, gids: Gids::new(gids) }
}

impl Stage {
    /// Makes the directory `name` in the export's root; in a read-only export the root is all there is.
    pub async fn set(addr: SocketAddr, portmap: Option<SocketAddr>, plan: Plan, name: &str) -> Self {
        let c = Client::connect(addr).await.unwrap();
        let root = c.mnt("/").await.unwrap().root;
        let made = c.mkdir(&root, name.as_bytes(), mode(0o777)).await;
        let dir = if made.stat() == NfsStat3::ROFS { root } else { made.good().object.unwrap() };
        Self { c, root, dir, addr, portmap, plan }
    }

    /// A connection of its own for the superuser.
    pub async fn connect(&self) -> Client {
        Client::connect(self.addr).await.unwrap()
    }

    /// Another user on the same connection.
    #[must_use]
    pub fn as_user(&self, uid: u32, gid: u32, gids: &[u32]) -> Client {
        self.c.with_cred(user(uid, gid, gids))
    }

    pub async fn attr(&self, object: &Fh) -> Fattr3 {
        self.c.getattr(object).await.good()
    }

    /// Makes a file in the test's directory.
    pub async fn file(&self, name: &str) -> Fh {
        create(&self.c, &self.dir, name, 0o644).await
    }

    /// Makes a directory in the test's directory.
    pub async fn subdir(&self, name: &str) -> Fh {
        mkdir(&self.c, &self.dir, name, 0o755).await
    }

    /// The bits of ACCESS that `c` has.
    pub async fn access(&self, c: &Client, object: &Fh) -> u32 {
        c.access(object, access::ALL).await.good().access
    }
}

/// Makes a file that must not be there.
pub async fn create(c: &Client, dir: &Fh, name: &str, bits: u32) -> Fh {
    c.create(dir, name.as_bytes(), CreateHow::Guarded(mode(bits))).await.good().object.unwrap()
}

/// Makes a directory.
pub async fn mkdir(c: &Client, dir: &Fh, name: &str, bits: u32) -> Fh {
    c.mkdir(dir, name.as_bytes(), mode(bits)).await.good().object.unwrap()
}

/// All pages of READDIR, `count` bytes each.
pub async fn list(c: &Client, dir: &Fh, count: u32) -> Vec<slice_load::client::Listed> {
    let (mut all, mut cookie, mut verf) = (Vec::new(), 0, CookieVerf::default());
    loop {
        let page: Page = c.readdir(dir, cookie, verf, count).await.good();
        verf = page.verf;
        let more = page.entries.last().map(|last| last.cookie);
        all.extend(page.entries);
        match more {
            _ if page.eof => return all,
            Some(last) => cookie = last,
            None => panic!("a page without entries and without the end after {} entries", all.len()),
        }
    }
}

/// All pages of READDIRPLUS, `maxcount` bytes each.
pub async fn list_plus(c: &Client, dir: &Fh, maxcount: u32) -> Vec<slice_load::client::Listed> {
    let (mut all, mut cookie, mut verf) = (Vec::new(), 0, CookieVerf::default());
    loop {
        let page: Page = c.readdirplus(dir, cookie, verf, maxcount, maxcount).await.good();
        verf = page.verf;
        let more = page.entries.last().map(|last| last.cookie);
        all.extend(page.entries);
        match more {
            _ if page.eof => return all,
            Some(last) => cookie = last,
            None => panic!("a page without entries and without the end after {} entries", all.len()),
        }
    }
}

/// The names of a directory, sorted, without `.` and `..`.
pub async fn names(c: &Client, dir: &Fh) -> Vec<Vec<u8>> {
    let listed = list(c, dir, PAGE).await.into_iter().map(|e| e.name);
    let mut all: Vec<_> = listed.filter(|name| name != b"." && name != b"..").collect();
    all.sort();
    all
}
