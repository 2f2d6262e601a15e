//! A view over maps, for tests of decisions.

use super::{Caller, Change, Missing, NameKey, Op, Outcome, View, decide};
use crate::decide::effect::{After, apply};
use crate::records::AttrRec;
use crate::state::cache::AttrCell;
use slice_proto::handle::Handle;
use slice_proto::ids::{FileId, Site, VolumeId};
use slice_proto::nfs3::FType3;
use slice_proto::peer::dir::Child;
use slice_proto::rpc_msg::{Cred, Gids};
use slice_proto::table::{NamePolicy, Volume};
use slice_store::Ticket;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A whole file system in two maps.
pub(crate) struct World {
    pub(crate) attrs: BTreeMap<FileId, AttrRec>,
    pub(crate) names: BTreeMap<(FileId, Vec<u8>), Child>,
    pub(crate) volume: Volume,
    pub(crate) now_ns: u64,
    next: u64,
}

pub(crate) const ROOT: FileId = FileId(1);

impl World {
    pub(crate) fn new() -> Self {
        let volume = Volume {
            id: VolumeId(0),
            path: "/".to_owned(),
            root: ROOT,
            policy: NamePolicy::Partition,
            seed: 7,
            placement: 0,
            root_uid: 0,
            root_gid: 0,
            root_mode: 0o755,
        };
        let mut root = AttrRec::new(FType3::Dir, VolumeId(0), 0, 0o777, 0, 0, 1);
        root.parent = ROOT;
        Self { attrs: [(ROOT, root)].into(), names: BTreeMap::new(), volume, now_ns: 1000, next: 100 }
    }

    pub(crate) fn user(uid: u32, gid: u32, gids: &[u32]) -> Cred {
        Cred { uid, gid, gids: Gids::new(gids) }
    }

    pub(crate) fn handle(&self, file: FileId) -> Handle {
        let ftype = self.attrs.get(&file).map_or(1, |r| r.ftype as u8);
        Handle { ftype, volume: VolumeId(0), policy: 0, file, snapshot: 0 }
    }

    /// Decides and applies.
    pub(crate) fn run(&mut self, cred: Cred, op: &Op<'_>) -> Outcome {
        self.now_ns += 1000;
        let volume = self.volume.clone();
        let who = Caller { cred, now_ns: self.now_ns, volume: &volume };
        let out = decide(op, &who, self).unwrap();
        for c in &out.changes {
            match c {
                Change::Make(f, rec) | Change::Set(f, rec) => {
                    self.attrs.insert(*f, (**rec).clone());
                }
                Change::Attr(e) => {
                    let Some(rec) = self.attrs.get(&e.file) else { continue };
                    match apply(rec, e) {
                        After::Stays(new) => self.attrs.insert(e.file, new),
                        After::Goes(_) => self.attrs.remove(&e.file),
                    };
                }
                Change::Name(n) => {
                    let key = (n.dir, n.name.to_vec());
                    assert_eq!(self.names.get(&key).map(|c| c.file), n.from);
                    match n.to {
                        Some(child) => self.names.insert(key, child),
                        None => self.names.remove(&key),
                    };
                }
            }
        }
        out
    }

    pub(crate) fn file(&self, dir: FileId, name: &[u8]) -> FileId {
        self.names[&(dir, name.to_vec())].file
    }
}

impl View for World {
    fn attr(&mut self, file: FileId) -> Result<Option<Arc<AttrCell>>, Missing> {
        let cell = |rec: &AttrRec| Arc::new(AttrCell { rec: rec.clone(), ticket: Ticket::default() });
        Ok(self.attrs.get(&file).map(cell))
    }

    fn dir(&mut self, dir: FileId) -> Result<Option<Arc<AttrCell>>, Missing> {
        self.attr(dir)
    }

    fn peek(&mut self, file: FileId) -> Result<Option<Arc<AttrCell>>, Missing> {
        self.attr(file)
    }

    fn child(&mut self, key: NameKey<'_>) -> Result<Option<Child>, Missing> {
        Ok(self.names.get(&(key.dir, key.name.to_vec())).copied())
    }

    fn fresh(&mut self, site: Site) -> Result<FileId, Missing> {
        self.next += 1;
        Ok(FileId::new(site, self.next))
    }

    fn right(&mut self, _: FileId) -> Result<(), Missing> {
        Ok(())
    }
}
