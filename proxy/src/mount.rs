//! MOUNT (RFC 1813 appendix I): handles of exports and of directories in them, and who mounted what.

use crate::classify::{Call, Target};
use crate::front::{Front, Job};
use crate::measured::At;
use crate::mounts::{export_list, exported, resolve};
use crate::reply::settle;
use crate::upstream::{Fault, Refused};
use bytes::{Bytes, BytesMut};
use slice_proto::handle::{Handle, HandleBytes};
use slice_proto::ids::{Epoch, Role, Xid};
use slice_proto::mount::{DirPath, MntRes, MntResV1, MountProc, MountStat};
use slice_proto::nfs3::{DirOp, LookupArgs, LookupRes, NfsStat3, Proc3, Res3};
use slice_proto::placement;
use slice_proto::rpc_msg::{
    ACCEPTED_LEN, Cred, ReplyStatus, auth_flavor, encode_reply, encode_success, version,
};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::{Handled, Message, Peer};
use std::rc::Rc;

/// `ftype3` of a directory.
const DIRECTORY: u8 = 2;

/// What MNT asks for.
struct Mnt {
    xid: Xid,
    version: u32,
    path: Bytes,
}

impl Front {
    /// Handles a MOUNT call.
    pub(crate) fn mount(
        &self,
        vers: u32,
        proc: u32,
        call: &Call,
        peer: &Peer,
        record: &[u8],
        reply: &mut Message,
    ) -> Handled {
        let (w, client) = (&mut reply.head, peer.addr.ip());
        let Some(proc) = MountProc::from_u32(proc) else {
            encode_reply(w, call.xid, ReplyStatus::ProcUnavail);
            return Handled::Done;
        };
        let args = record.get(call.args_at..).unwrap_or_default();
        let path = match proc {
            MountProc::Mnt | MountProc::Umnt => DirPath::decode(&mut Reader::new(args)).map(|p| p.0),
            _ => Ok(&[][..]),
        };
        let Ok(path) = path else {
            encode_reply(w, call.xid, ReplyStatus::GarbageArgs);
            return Handled::Done;
        };
        let mounts = || self.shared.mounts.lock();
        match proc {
            MountProc::Mnt => {
                let Some(front) = self.rc() else { return Handled::Close };
                let mnt = Mnt { xid: call.xid, version: vers, path: Bytes::copy_from_slice(path) };
                let peer = peer.clone();
                return Handled::Later(Box::pin(async move { front.mnt(mnt, &peer).await }));
            }
            MountProc::Null => encode_success(w, call.xid),
            MountProc::Dump => {
                encode_success(w, call.xid);
                mounts().list().encode(w);
            }
            MountProc::Umnt => {
                mounts().remove(client, Some(path));
                encode_success(w, call.xid);
            }
            MountProc::UmntAll => {
                mounts().remove(client, None);
                encode_success(w, call.xid);
            }
            MountProc::Export => {
                encode_success(w, call.xid);
                let table = self.table();
                export_list(&exported(&self.shared.exports, &table)).encode(w);
            }
        }
        Handled::Done
    }

    async fn mnt(self: Rc<Self>, mnt: Mnt, peer: &Peer) -> Message {
        let result = self.try_mnt(&mnt, peer).await;
        let mut w = BytesMut::with_capacity(128);
        encode_success(&mut w, mnt.xid);
        match result {
            Ok(handle) if mnt.version == version::MOUNT3 => {
                self.shared.mounts.lock().add(peer.addr.ip(), &mnt.path);
                MntRes::Ok { handle: &handle, flavors: vec![auth_flavor::SYS, auth_flavor::NONE] }
                    .encode(&mut w);
            }
            // A handle of ours is longer than version 1's.
            Ok(_) => MntResV1::Err(MountStat::INVAL).encode(&mut w),
            // Version 1's failure looks the same.
            Err(status) => MntRes::Err(status).encode(&mut w),
        }
        w.into()
    }

    async fn try_mnt(&self, mnt: &Mnt, peer: &Peer) -> Result<HandleBytes, MountStat> {
        self.first_table().await;
        let table = self.table();
        let found = resolve(&table, &mnt.path).ok_or(MountStat::NOENT)?;
        self.rule(found.volume.id.0, peer.addr.ip()).ok_or(MountStat::ACCES)?;
        let mut at = found.volume.root_handle();
        // As the superuser: what the client may do with the directory is decided at its every request.
        let job = Job {
            xid: mnt.xid,
            proc: Proc3::Lookup,
            client: peer.addr.ip().into(),
            cred: Cred::ROOT,
            target: Target::Nothing,
            record: Bytes::new(),
            at: At::unmeasured(),
            turn: None,
        };
        for name in found.rest {
            at = self.lookup(&job, &at, name).await?;
        }
        if at.ftype != DIRECTORY {
            return Err(MountStat::NOTDIR);
        }
        Ok(self.seal(&at))
    }

    async fn lookup(&self, job: &Job, dir: &Handle, name: &[u8]) -> Result<Handle, MountStat> {
        let site = self
            .with_table(|t| t.volume(dir.volume).map(|v| placement::entry_site(v, dir.file, name)))
            .ok_or(MountStat::NOENT)?;
        let fh = self.seal(dir);
        let args = LookupArgs { what: DirOp { dir: &fh, name } };
        let make = |table| self.nfs_call(job, Proc3::Lookup, &args, Bytes::new(), (table, Epoch(0)));
        let read = |mut reply, _| {
            let verdict = settle(&mut self.soft.borrow_mut(), Proc3::Lookup, job.xid, &mut reply, self);
            Fault::of_verdict(verdict).map_or(Ok(reply), Err)
        };
        // The numbers of mountstat3 are those of nfsstat3.
        let status = |status: NfsStat3| MountStat(status.0);
        let reply =
            self.routed(Role::Dir, site, make, read).await.map_err(Refused::status).map_err(status)?;
        match LookupRes::decode(&mut Reader::at(&reply.head, ACCEPTED_LEN)) {
            Ok(Res3::Ok(found)) => self.open(found.object).ok_or(MountStat::SERVERFAULT),
            Ok(Res3::Err(failed, _)) => Err(status(failed)),
            Err(_) => Err(MountStat::SERVERFAULT),
        }
    }
}
