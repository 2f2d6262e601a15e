//! Carries repairs out.

use super::super::ask::{Asked, Servers};
use super::super::error::Error;
use super::facts::{Facts, Record};
use super::gather::inspect;
use super::plan::Repair;
use bytes::{Bytes, BytesMut};
use slice_proto::handle::KeyRing;
use slice_proto::ids::{FileId, Role, ServerId, VolumeId, Xid};
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    CreateOk, FType3, LookupArgs, LookupOk, MkdirArgs, NfsStat3, PostOpAttr, Proc3, Res3, Sattr3, WccData,
};
use slice_proto::peer::data::{DataRes, PurgeArgs, Sites};
use slice_proto::peer::dir::Child;
use slice_proto::peer::repair::{NameRepair, Repair as Home, RepairArgs, RepairRes, Seen};
use slice_proto::peer::{PeerProc, PrivateStatus};
use slice_proto::placement::entry_site;
use slice_proto::rpc_msg::{AuthSys, Cred, Gids, ReplyHeader, ReplyStatus, encode_call, program, version};
use slice_proto::table::{RoutingTable, Volume};
use slice_proto::trailer::{CallTrailer, ClientId, ResultTrailer};
use slice_proto::xdr::{Decode, Encode, Reader};
use std::collections::BTreeMap;

/// Where files without a name get one.
pub const LOST_AND_FOUND: &[u8] = b"lost+found";

/// What became of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It is void: what it saw has changed, or is about to.
    Void,
    /// A server refuses, with an nfsstat3.
    Refused(NfsStat3),
}

/// Carries out the repairs of one run.
pub struct Actor<'a> {
    servers: &'a Servers,
    table: &'a RoutingTable,
    keys: KeyRing,
    /// Whose calls make directories: nobody else's.
    client: ClientId,
    xid: u32,
    /// `/lost+found` of each volume, once it is known.
    lost: BTreeMap<VolumeId, FileId>,
}

impl<'a> Actor<'a> {
    /// For an ensemble whose handles `keys` make; `client` is drawn at random.
    pub fn new(servers: &'a Servers, table: &'a RoutingTable, keys: KeyRing, client: ClientId) -> Self {
        Self { servers, table, keys, client, xid: 0, lost: BTreeMap::new() }
    }

    /// Nothing is remembered of what may have been taken away meanwhile.
    pub fn forget(&mut self) {
        self.lost.clear();
    }

    /// Carries one out. What it changes is compared with `facts` where it stands, and what it concludes from looked at again.
    pub async fn act(&mut self, repair: &Repair, facts: &Facts<'_>) -> Result<Outcome, Error> {
        match repair {
            Repair::At(Home::Name(r)) => {
                // Whom it stands for was looked at, or else what it stands in.
                let known = r.from.filter(|file| facts.looked_at(*file)).unwrap_or(r.dir);
                if self.changed(known, facts).await? {
                    return Ok(Outcome::Void);
                }
                self.name(r).await
            }
            Repair::At(r @ (Home::Counts(_) | Home::Make(_) | Home::Size(_))) => {
                let file = match r {
                    Home::Counts(r) => r.seen.attr.file,
                    Home::Size(r) => r.seen.attr.file,
                    Home::Make(r) => r.dir,
                    Home::Name(r) => r.dir,
                };
                self.at(self.table.owner(Role::Dir, file.home()), r).await
            }
            Repair::Adopt(seen) => {
                if self.changed(seen.attr.file, facts).await? {
                    return Ok(Outcome::Void);
                }
                self.adopt(seen).await
            }
            Repair::Purge { role, server, file, epoch } => {
                if self.changed(*file, facts).await? {
                    return Ok(Outcome::Void);
                }
                let Some(asked) = self.servers.get(*role, *server) else { return Ok(Outcome::Void) };
                let args = PurgeArgs {
                    table: self.table.epoch,
                    sites: Sites::default(),
                    file: *file,
                    epoch: *epoch,
                };
                let res: DataRes = asked.call(PeerProc::Purge, &args).await?;
                Ok(outcome(res.status, true))
            }
        }
    }

    /// Whether a file's record is not as the names were judged by.
    async fn changed(&self, file: FileId, facts: &Facts<'_>) -> Result<bool, Error> {
        let now = inspect(self.servers, self.table, file).await?;
        Ok(now == Record::Busy || now != *facts.of_record(file))
    }

    async fn at(&self, server: Option<ServerId>, repair: &Home) -> Result<Outcome, Error> {
        let Some(asked) = server.and_then(|s| self.servers.get(Role::Dir, s)) else {
            return Ok(Outcome::Void);
        };
        let args = RepairArgs { table: self.table.epoch, repair: repair.clone() };
        let res: RepairRes = asked.call(PeerProc::Repair, &args).await?;
        Ok(outcome(res.status, res.done))
    }

    async fn name(&self, r: &NameRepair) -> Result<Outcome, Error> {
        let Some(volume) = self.table.volume(r.volume) else { return Ok(Outcome::Void) };
        let site = entry_site(volume, r.dir, &r.name);
        self.at(self.table.owner(Role::Dir, site), &Home::Name(r.clone())).await
    }

    /// Gives a file a name in `/lost+found`: what `ls -i` shows as its number.
    async fn adopt(&mut self, seen: &Seen) -> Result<Outcome, Error> {
        let Some(volume) = self.table.volume(seen.volume) else { return Ok(Outcome::Void) };
        let dir = match self.lost.get(&volume.id) {
            Some(dir) => *dir,
            None => match self.lost_and_found(volume).await? {
                Ok(dir) => *self.lost.entry(volume.id).or_insert(dir),
                Err(status) => return Ok(Outcome::Refused(status)),
            },
        };
        let file = seen.attr.file;
        let child = Child { file, ftype: seen.attr.ftype, policy: seen.policy };
        let name = Bytes::from(format!("#{}", file.0));
        self.name(&NameRepair { volume: volume.id, dir, name, from: None, to: Some(child) }).await
    }

    /// Finds or makes a volume's `/lost+found`, as a client would: root's, and nobody else's.
    async fn lost_and_found(&mut self, volume: &Volume) -> Result<Result<FileId, NfsStat3>, Error> {
        let root = self.keys.seal(&volume.root_handle());
        let at = DirOp { dir: &root, name: LOST_AND_FOUND };
        let look = LookupArgs { what: at };
        let found = self.nfs(volume, Proc3::Lookup, &look, |r| {
            let res = Res3::<LookupOk<'_>, PostOpAttr>::decode(r)?;
            Ok(res.into_result().map(|ok| ok.object.to_vec()))
        });
        let handle = match found.await? {
            Err(NfsStat3::NOENT) => {
                let attr = Sattr3 { mode: Some(0o700), uid: Some(0), gid: Some(0), ..Sattr3::default() };
                let make = MkdirArgs { at, attr };
                let made = self.nfs(volume, Proc3::Mkdir, &make, |r| {
                    let res = Res3::<CreateOk<'_>, WccData>::decode(r)?;
                    Ok(res.into_result().map(|ok| ok.object.unwrap_or_default().to_vec()))
                });
                made.await?
            }
            found => found,
        };
        Ok(handle.and_then(|handle| match self.keys.open(&handle) {
            Ok(h) if h.ftype == FType3::Dir as u8 => Ok(h.file),
            Ok(_) => Err(NfsStat3::NOTDIR),
            Err(_) => Err(NfsStat3::BADHANDLE),
        }))
    }

    /// An NFS call about a name in a volume's root, by root.
    async fn nfs<T>(
        &mut self,
        volume: &Volume,
        proc: Proc3,
        args: &impl Encode,
        read: impl FnOnce(&mut Reader<'_>) -> slice_proto::xdr::Result<Result<T, NfsStat3>>,
    ) -> Result<Result<T, NfsStat3>, Error> {
        let site = entry_site(volume, volume.root, LOST_AND_FOUND);
        let asked = self.table.owner(Role::Dir, site).and_then(|s| self.servers.get(Role::Dir, s));
        let Some(asked) = asked else { return Ok(Err(NfsStat3::JUKEBOX)) };
        let Asked { role, server, .. } = asked;
        self.xid += 1;
        let xid = Xid(self.xid);
        let mut w = BytesMut::new();
        let cred =
            AuthSys { stamp: 0, machine: b"admin", cred: Cred { uid: 0, gid: 0, gids: Gids::new(&[]) } };
        encode_call(&mut w, xid, program::NFS, version::NFS3, proc as u32, &cred);
        args.encode(&mut w);
        let trailer =
            CallTrailer { client: self.client, xid, table: self.table.epoch, ..CallTrailer::default() };
        trailer.append(&mut w);
        let reply = asked.send(w).await?;
        let garbled = || Error::garbled(*role, *server);
        let header = ReplyHeader::decode(&reply).map_err(garbled())?;
        if header.status != ReplyStatus::Success {
            return Err(Error::Garbled { role: *role, server: *server, why: format!("{:?}", header.status) });
        }
        let (front, _) = ResultTrailer::split(&reply).map_err(garbled())?;
        let status = Reader::at(front, header.body_at).u32().map_err(garbled())?;
        if PrivateStatus::from_u32(status).is_some() {
            return Ok(Err(NfsStat3::JUKEBOX));
        }
        read(&mut Reader::at(front, header.body_at)).map_err(garbled())
    }
}

/// What a status says.
fn outcome(status: u32, done: bool) -> Outcome {
    match status {
        0 if done => Outcome::Done,
        0 => Outcome::Void,
        // Held, fenced or moved meanwhile: the next look tells.
        s if PrivateStatus::from_u32(s).is_some() || s == NfsStat3::JUKEBOX.0 => Outcome::Void,
        s => Outcome::Refused(NfsStat3(s)),
    }
}
