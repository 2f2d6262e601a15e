//! WRITE (RFC 1813 section 3.3.7): into memory; with DATA_SYNC and FILE_SYNC, and when memory is full, through the log before
//! it is answered.

use crate::cache::Cell;
use crate::commit::NO_WCC;
use crate::core::fence::{self, WriteVerdict};
use crate::core::{BLOCK, LIMIT};
use crate::error::{Error, Result};
use crate::log::segment::{Miss, Patience};
use crate::node::{Admission, Node};
use crate::reply::{Refusal, refuse, trailer};
use bytes::BytesMut;
use slice_proto::ids::{Epoch, FileId, TableEpoch, Xid};
use slice_proto::nfs3::{NfsStat3, StableHow, WccData, WriteOk, WriteRes};
use slice_proto::peer::PrivateStatus;
use slice_proto::placement::small_site;
use slice_proto::rpc_msg::encode_success;
use slice_proto::xdr::Encode;
use slice_rpc::service::{Handled, Message};
use std::ops::Range;
use std::sync::Arc;

/// A WRITE whose range has been checked: it ends at 64 KiB or below.
#[derive(Debug, Clone)]
pub(crate) struct WriteCall {
    pub xid: Xid,
    pub table: TableEpoch,
    pub epoch: Epoch,
    pub file: FileId,
    pub offset: u32,
    pub stable: StableHow,
    /// Where the data is in the record.
    pub data: Range<usize>,
}

/// Why a WRITE was not done on the spot.
#[derive(Debug)]
enum Undone {
    /// What it keeps of a block is not in the page cache.
    NotCached,
    /// A segment must be made first, if there is space for one: so many bytes must be free.
    NoRoom(u64),
    Refused(Refusal),
}

impl From<Error> for Undone {
    fn from(e: Error) -> Self {
        Self::Refused(e.into())
    }
}

impl From<Miss> for Undone {
    fn from(m: Miss) -> Self {
        match m {
            Miss::NotCached => Self::NotCached,
            Miss::Failed(e) => e.into(),
        }
    }
}

/// Answers at once if the WRITE is unstable and memory has room.
pub(crate) fn call(node: &Arc<Node>, call: WriteCall, record: BytesMut, reply: &mut Message) -> Handled {
    match node.admission(call.table, [small_site(call.file)]) {
        Admission::Yes => {}
        Admission::No(why, _) => {
            answer(node, &call, Err(why.into()), &mut reply.head);
            return Handled::Done;
        }
        Admission::Wait => return later(node, call, record, None),
    }
    let cell = match node.cell(call.file) {
        Ok(cell) => cell,
        Err(e) => {
            answer(node, &call, Err(e.into()), &mut reply.head);
            return Handled::Done;
        }
    };
    let data = record.get(call.data.clone()).unwrap_or_default();
    match write(node, &cell, &call, data, Patience::None) {
        Ok(_) if call.stable == StableHow::Unstable && !node.is_full() => {
            if node.is_pressed() {
                node.queue.press();
            }
            answer(node, &call, Ok(StableHow::Unstable), &mut reply.head);
            Handled::Done
        }
        Ok(version) => later(node, call, record, Some((cell, version))),
        Err(Undone::Refused(why)) => {
            answer(node, &call, Err(why), &mut reply.head);
            Handled::Done
        }
        Err(Undone::NotCached | Undone::NoRoom(_)) => later(node, call, record, None),
    }
}

/// Goes on where something must be waited for: `done` if only that it becomes durable.
fn later(node: &Arc<Node>, call: WriteCall, record: BytesMut, done: Option<(Arc<Cell>, u64)>) -> Handled {
    let node = Arc::clone(node);
    // Asked for before anything is awaited: the group that is being gathered has it.
    let done = done.map(|(cell, version)| (node.queue.commit(Arc::clone(&cell)), cell, version));
    Handled::Later(Box::pin(async move {
        let outcome = async {
            let (ticket, cell, version) = match done {
                Some(done) => done,
                None => {
                    node.admit(call.table, [small_site(call.file)]).await?;
                    let cell = node.cell(call.file)?;
                    let data = record.get(call.data.clone()).unwrap_or_default();
                    let version = patient(&node, &cell, &call, data).await?;
                    if call.stable == StableHow::Unstable && !node.is_full() {
                        return Ok(StableHow::Unstable);
                    }
                    (node.queue.commit(Arc::clone(&cell)), cell, version)
                }
            };
            node.committed(&cell, ticket, version).await?;
            Ok(StableHow::FileSync)
        };
        let outcome = outcome.await;
        let mut w = BytesMut::new();
        answer(&node, &call, outcome, &mut w);
        w.into()
    }))
}

/// Writes, waiting for the disk and for room as often as it must.
async fn patient(
    node: &Arc<Node>,
    cell: &Arc<Cell>,
    call: &WriteCall,
    data: &[u8],
) -> std::result::Result<u64, Refusal> {
    loop {
        let mut outcome = None;
        let read = node.patiently(cell, |patience| match write(node, cell, call, data, patience) {
            Err(Undone::NotCached) => Err(Miss::NotCached),
            other => {
                outcome = Some(other);
                Ok(())
            }
        });
        read.await?;
        match outcome {
            Some(Ok(version)) => return Ok(version),
            Some(Err(Undone::Refused(why))) => return Err(why),
            Some(Err(Undone::NoRoom(wanted))) => {
                let here = Arc::clone(node);
                node.blocking(move || here.segments.grow(wanted)).await??;
            }
            Some(Err(Undone::NotCached)) | None => {}
        }
    }
}

/// Writes into memory; answers with the version that must become durable.
fn write(
    node: &Node,
    cell: &Cell,
    call: &WriteCall,
    data: &[u8],
    patience: Patience,
) -> std::result::Result<u64, Undone> {
    // I8: after a lost fsync nothing is taken in any more.
    node.queue.progress.health().map_err(Error::from)?;
    let end = call.offset.saturating_add(data.len() as u32).min(LIMIT);
    // NOSPC is said here, not at the COMMIT: whatever is held in memory has its place in segments that are there.
    let most = node.room_for(call.offset, end);
    let wanted = node.held().saturating_add(most);
    if wanted > node.segments.usable() {
        return Err(Undone::NoRoom(wanted));
    }
    node.change(cell, |object| {
        match fence::write(object.epoch, object.is_tombstone(), call.epoch) {
            WriteVerdict::Go => {}
            WriteVerdict::Fenced => return Err(Undone::Refused(PrivateStatus::Fenced.into())),
            WriteVerdict::Gone => return Err(Undone::Refused(NfsStat3::STALE.into())),
        }
        let mut bases = Vec::new();
        for (block, extent) in object.needed_for_write(call.offset, end) {
            bases.push((block, node.read_block(call.file, &extent, patience)?));
        }
        object.raise(call.epoch);
        object.write(call.offset, data, |block| {
            let at = bases.iter().position(|(b, _)| *b == block);
            at.map_or_else(Vec::new, |at| bases.swap_remove(at).1)
        });
        Ok(object.version())
    })
}

fn answer(node: &Node, call: &WriteCall, outcome: std::result::Result<StableHow, Refusal>, w: &mut BytesMut) {
    let table = node.table().epoch;
    match outcome {
        Ok(committed) => {
            encode_success(w, call.xid);
            let count = call.data.len() as u32;
            WriteRes::Ok(WriteOk { wcc: WccData::default(), count, committed, verf: node.verifier() })
                .encode(w);
            trailer(w, table);
        }
        Err(why) => refuse(w, call.xid, why, NO_WCC, table),
    }
}

impl Node {
    /// Bytes that a write of `offset..end` can add to what is held, at most.
    fn room_for(&self, offset: u32, end: u32) -> u64 {
        let blocks = (end as usize).div_ceil(BLOCK).saturating_sub(offset as usize / BLOCK);
        (blocks * (BLOCK + crate::core::object::BLOCK_OVERHEAD)) as u64
    }

    /// Waits for the group of `ticket`, and sees whether `version` of the object has become durable with it.
    pub(crate) async fn committed(
        &self,
        cell: &Cell,
        ticket: slice_store::Ticket,
        version: u64,
    ) -> Result<()> {
        self.queue.progress.wait(ticket).await?;
        let object = cell.object.lock();
        if object.durable() >= version {
            return Ok(());
        }
        // The one failure after which the log goes on.
        Err(Error::NoSpace)
    }
}
