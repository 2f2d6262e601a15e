//! WRITE (RFC 1813 section 3.3.7), fenced by the file's epoch (I9).
//!
//! Into the page cache on the spot, if the object is in memory with its file open; a stable one then waits for the
//! object's group commit. On the spot even for 1 MiB: measured (`tests/measure.rs`), 7 µs for 4 KiB and 130 to 280 µs for
//! 1 MiB, while the way to another thread and back costs 25 to 80 µs.

use crate::commit::NO_WCC;
use crate::error::Error;
use crate::fence::WriteVerdict;
use crate::node::{Admission, Node};
use crate::object::Object;
use crate::reply::{Refusal, refuse, trailer};
use crate::space::allocate;
use bytes::{Bytes, BytesMut};
use slice_proto::ids::{Epoch, FileId, TableEpoch, Xid};
use slice_proto::nfs3::{NfsStat3, StableHow, Verifier, WccData, WriteOk, WriteRes};
use slice_proto::peer::PrivateStatus;
use slice_proto::rpc_msg::encode_success;
use slice_proto::xdr::Encode;
use slice_rpc::service::{Handled, Message};
use slice_system::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// A WRITE whose range has been checked.
#[derive(Debug, Clone)]
pub(crate) struct WriteCall {
    pub xid: Xid,
    pub table: TableEpoch,
    pub epoch: Epoch,
    pub file: FileId,
    pub offset: u64,
    pub stable: StableHow,
    /// The bytes, where the record holds them.
    pub data: Bytes,
}

/// Times that a WRITE makes room for itself (makes the file, raises the epoch) before it gives up: each is needed
/// once, and again only if a PURGE comes in between.
const MAX_TRIES: usize = 8;

/// What was written.
#[derive(Debug, Clone, Copy)]
struct Written {
    count: usize,
    /// As it was before the bytes went in: if they are lost before a COMMIT, that one shows another.
    verf: Verifier,
}

impl WriteCall {
    fn sites(&self) -> impl Iterator<Item = slice_proto::ids::Site> + Clone + use<> {
        crate::service::sites(self.file, self.offset, self.data.len() as u32)
    }

    /// Writes the bytes into the page cache. `None` rather than wait, unless it `may_block`.
    fn apply(&self, node: &Node, object: &Object, may_block: bool) -> Result<Option<Written>, Refusal> {
        let data = &self.data;
        for _ in 0..MAX_TRIES {
            let verf = node.verifier();
            if object.committer.lost() {
                return Err(Error::Poisoned.into());
            }
            let Some(state) = object.shared(may_block) else { return Ok(None) };
            match state.fence.write(self.epoch) {
                WriteVerdict::Fenced => return Err(PrivateStatus::Fenced.into()),
                WriteVerdict::Gone => return Err(NfsStat3::STALE.into()),
                WriteVerdict::Raise => {
                    drop(state);
                    if !object.raise(self.epoch, &node.store, may_block)? {
                        return Ok(None);
                    }
                    continue;
                }
                WriteVerdict::Go => {}
            }
            if data.is_empty() {
                return Ok(Some(Written { count: 0, verf }));
            }
            let Some(file) = state.bytes.as_deref() else {
                if !may_block {
                    return Ok(None);
                }
                drop(state);
                object.create(&node.layout)?;
                continue;
            };
            node.space.admit(file, self.offset, data.len() as u64)?;
            allocate(file, object.end(), self.offset, data.len() as u64);
            let count = put(file, data, self.offset)
                .map_err(|e| Error::io("write", node.layout.path(self.file))(e))?;
            object.grew(self.offset + count as u64);
            object.wrote();
            return Ok(Some(Written { count, verf }));
        }
        Err(NfsStat3::JUKEBOX.into())
    }

    fn answer(&self, node: &Node, outcome: Result<Written, Refusal>, w: &mut BytesMut) {
        let table = node.table().epoch;
        match outcome {
            Ok(Written { count, verf }) => {
                encode_success(w, self.xid);
                // An fdatasync makes all durable that is needed to read the bytes; there is no other metadata here.
                let committed = match self.stable {
                    StableHow::Unstable => StableHow::Unstable,
                    StableHow::DataSync | StableHow::FileSync => StableHow::FileSync,
                };
                WriteRes::Ok(WriteOk { wcc: WccData::default(), count: count as u32, committed, verf })
                    .encode(w);
                trailer(w, table);
            }
            Err(why) => refuse(w, self.xid, why, NO_WCC, table),
        }
    }
}

/// Writes all bytes, or those that fit: an error after some is the next call's.
fn put(file: &dyn File, data: &[u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|r| !r.is_empty()) {
        match file.write_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Answers a WRITE.
pub(crate) fn call(node: &Arc<Node>, call: WriteCall, reply: &mut Message) -> Handled {
    let mut written = None;
    match node.admission(call.table, call.sites()) {
        Admission::No(why, table) => {
            refuse(&mut reply.head, call.xid, why.into(), NO_WCC, table);
            return Handled::Done;
        }
        Admission::Yes(_) => {
            if let Some(object) = node.cache.get(call.file) {
                match call.apply(node, &object, false) {
                    Ok(Some(w)) if call.stable == StableHow::Unstable => {
                        call.answer(node, Ok(w), &mut reply.head);
                        return Handled::Done;
                    }
                    Ok(w) => written = w.map(|w| (w, object)),
                    Err(why) => {
                        call.answer(node, Err(why), &mut reply.head);
                        return Handled::Done;
                    }
                }
            }
        }
        Admission::Wait => {}
    }
    let node = Arc::clone(node);
    Handled::Later(Box::pin(async move {
        let outcome = match written {
            Some(written) => Ok(written),
            None => apply_later(&node, &call).await,
        };
        let outcome = match outcome {
            Ok((w, object)) if call.stable != StableHow::Unstable => {
                node.durable(&object).await.map(|()| w).map_err(Refusal::from)
            }
            other => other.map(|(w, _)| w),
        };
        let mut w = BytesMut::new();
        call.answer(&node, outcome, &mut w);
        w.into()
    }))
}

/// Writes where something must be waited for: a newer table, the object, its file.
async fn apply_later(node: &Arc<Node>, call: &WriteCall) -> Result<(Written, Arc<Object>), Refusal> {
    node.admit(call.table, call.sites()).await?;
    let object = node.object_for(call.file, Some(call.epoch)).await?;
    if let Some(written) = call.apply(node, &object, false)? {
        return Ok((written, object));
    }
    let (here, to, job) = (Arc::clone(node), Arc::clone(&object), call.clone());
    match node.blocking(move || job.apply(&here, &to, true)).await?? {
        Some(written) => Ok((written, object)),
        None => Err(NfsStat3::JUKEBOX.into()),
    }
}
