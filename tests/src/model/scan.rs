//! A listing under way, while the directory changes: no entry that is there throughout is skipped or repeated (I2).

use super::fs::Id;
use super::{Result, differs};
use slice_proto::nfs3::CookieVerf;
use std::collections::{BTreeMap, BTreeSet};

/// A listing of one directory.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The directory.
    pub dir: Id,
    /// Where the next page begins.
    pub cookie: u64,
    /// To be given back.
    pub verf: CookieVerf,
    /// Names that have been there since the listing began.
    must: BTreeSet<Vec<u8>>,
    /// Whom each name stood for at any time since.
    ever: BTreeMap<Vec<u8>, BTreeSet<Id>>,
    /// Names that have been listed.
    listed: BTreeSet<Vec<u8>>,
    cookies: BTreeSet<u64>,
    /// Whether the last page has been seen.
    pub over: bool,
}

impl Scan {
    /// Begins a listing of a directory that has these names.
    pub fn new(dir: Id, names: &BTreeMap<Vec<u8>, Id>) -> Self {
        Self {
            dir,
            cookie: 0,
            verf: CookieVerf::default(),
            must: names.keys().cloned().chain([b".".to_vec(), b"..".to_vec()]).collect(),
            ever: names.iter().map(|(n, id)| (n.clone(), [*id].into())).collect(),
            listed: BTreeSet::new(),
            cookies: BTreeSet::new(),
            over: false,
        }
    }

    /// A name has come.
    pub fn appeared(&mut self, name: &[u8], id: Id) {
        self.ever.entry(name.to_vec()).or_default().insert(id);
    }

    /// A name has gone.
    pub fn vanished(&mut self, name: &[u8]) {
        self.must.remove(name);
    }

    /// The next entry of a page; who it can be. `None` for `.` and `..`.
    pub fn entry(&mut self, name: &[u8], cookie: u64) -> Result<Option<&BTreeSet<Id>>> {
        let text = String::from_utf8_lossy(name).into_owned();
        if cookie == 0 || !self.cookies.insert(cookie) {
            return differs(format!("cookie {cookie} of {text:?} was another's"));
        }
        let again = !self.listed.insert(name.to_vec());
        if again && self.must.contains(name) {
            return differs(format!("{text:?} is listed twice"));
        }
        self.cookie = cookie;
        if name == b"." || name == b".." {
            return Ok(None);
        }
        match self.ever.get(name) {
            Some(ids) => Ok(Some(ids)),
            None => differs(format!("{text:?} was never there")),
        }
    }

    /// The last page has been seen.
    pub fn end(&mut self) -> Result<()> {
        self.over = true;
        let missing: Vec<_> =
            self.must.difference(&self.listed).map(|n| String::from_utf8_lossy(n).into_owned()).collect();
        if missing.is_empty() { Ok(()) } else { differs(format!("never listed: {missing:?}")) }
    }
}
