//! WRITE (RFC 1813 section 3.3.7): parts side by side, the contiguous prefix that succeeded (DESIGN §7, I5, I9).
//!
//! ```text
//!  attributes at most 1 s old (else GETATTR) ─▶ permission ─▶ reach (else RAISE_REACH, durable)
//!     └─▶ parts ‖ PUSH where the reply promises durability or set-id bits go, if the file does not grow
//!            ├─ Fenced ─▶ GETATTR, from the start
//!            └─▶ EXTEND before the first byte past 64 KiB is acknowledged ─▶ PUSH, if the file grows
//!                   └─▶ soft state: end, stamp, sites to COMMIT ─▶ reply with the verifier as it was when the call arrived
//! ```
//! Growth is told only of bytes that are there: told beside them, a WRITE that then finds no space would leave a file of
//! zeros that nobody wrote (decision 0010).

use crate::classify::Target;
use crate::front::{Front, Job};
use crate::merge::{WritePart, write_merge};
use crate::permission::{self, Want};
use crate::read::role_of;
use crate::reply::Now;
use crate::soft::file::{Beyond, Push, Wrote};
use crate::upstream::{Fault, Fence, Refused, nfs_reply};
use bytes::Bytes;
use futures_util::future::{join, join_all};
use slice_proto::ids::{Epoch, FileId};
use slice_proto::nfs3::{
    FType3, Fattr3, NfsStat3, Proc3, StableHow, Verifier, WccData, WriteArgsHead, WriteOk, WriteRes,
};
use slice_proto::placement::{self, MAX_FILE_SIZE, Part, THRESHOLD};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::Message;
use std::rc::Rc;

/// A WRITE taken apart: its bytes stay where the client's record was read to.
struct Write<'a> {
    file: FileId,
    fh: &'a [u8],
    offset: u64,
    stable: StableHow,
    data: Bytes,
}

/// What came of one try.
enum Tried {
    /// This many bytes, this durably.
    Written(u32, StableHow),
    /// The epoch was old.
    Fenced,
}

impl Front {
    /// Answers a WRITE.
    pub(crate) async fn write(self: Rc<Self>, mut job: Job) -> Message {
        // As the request arrived (I7).
        let verf = self.shared.verifier.current();
        let Target::Write { file, handle, offset, stable, data } = &job.target else {
            return self.fail(job.xid, job.proc, NfsStat3::SERVERFAULT);
        };
        let record = std::mem::take(&mut job.record);
        let write = Write {
            file: file.file,
            fh: record.get(handle.clone()).unwrap_or_default(),
            offset: *offset,
            stable: *stable,
            data: record.slice(data.clone()),
        };
        let answer = match FType3::from_u32(u32::from(file.ftype)).map_or(Ok(()), permission::is_file) {
            Ok(()) => self.try_write(&job, &write).await,
            Err(status) => Err(status),
        };
        match answer {
            Ok((count, committed)) => {
                // Fetched again only if the parts took longer than attributes stay fresh, or nothing was written, which
                // has no time of its own to show. Without is allowed, too.
                let after = match self.shown(write.file).filter(|_| count > 0) {
                    Some(attr) => Some(attr),
                    None => self.getattr(&job, write.file, write.fh).await.ok(),
                };
                self.write_reply(&job, after, count, committed, verf)
            }
            Err(status) => self.fail(job.xid, job.proc, status),
        }
    }

    async fn try_write(&self, job: &Job, write: &Write<'_>) -> Result<(u32, StableHow), NfsStat3> {
        // Data is at most MAX_DATA long.
        let end = write.offset.saturating_add(write.data.len() as u64);
        if end > MAX_FILE_SIZE {
            return Err(NfsStat3::FBIG);
        }
        let mut fence = Fence::default();
        loop {
            let attr = self.attributes(job, write.file, write.fh).await?;
            permission::check(&attr, &job.cred, Want::Write)?;
            if write.data.is_empty() {
                return Ok((0, StableHow::FileSync));
            }
            let Some((epoch, reach)) =
                self.soft.borrow().get(write.file).and_then(|s| Some((s.epoch()?, s.reach())))
            else {
                // What came was older than what is known: the home site is behind its data sites.
                fence.pause().await?;
                self.getattr(job, write.file, write.fh).await?;
                continue;
            };
            if end > reach {
                // It may be refused because the epoch is old: as with a fence, then.
                self.raise_reach(write.file, epoch, end).await?;
                fence.pause().await?;
                continue;
            }
            let clears = permission::clears_set_ids(attr.mode, &job.cred);
            match self.write_once(job, write, epoch, end, clears).await? {
                Tried::Written(count, committed) => return Ok((count, committed)),
                Tried::Fenced => {}
            }
            fence.pause().await?;
            self.getattr(job, write.file, write.fh).await?;
        }
    }

    /// Sends all parts under one epoch, and tells what must be told of them.
    async fn write_once(
        &self,
        job: &Job,
        write: &Write<'_>,
        epoch: Epoch,
        end: u64,
        clear_set_ids: bool,
    ) -> Result<Tried, NfsStat3> {
        let file = write.file;
        let stable = write.stable != StableHow::Unstable;
        let now_ns = self.local_ns();
        let time_ns = {
            let mut soft = self.soft.borrow_mut();
            let ensemble_ns = soft.clock.at(now_ns);
            soft.upsert(file, |state| state.next_stamp(ensemble_ns))
        };
        let wrote = Wrote { epoch, end, time_ns, clear_set_ids };
        // A client that was promised durability, or that clears set-id bits, must find the home site told.
        let told = stable || clear_set_ids;
        let grows = self.soft.borrow().get(file).is_none_or(|state| end > state.size_at_least());
        // data is at most MAX_DATA long.
        let parts: Vec<Part> = placement::split(file, write.offset, write.data.len() as u32).collect();
        let parts = join_all(parts.into_iter().map(|part| self.write_part(job, write, part, epoch)));
        let beside =
            async { if told && !grows { self.push(file, Some(wrote)).await.map(Some) } else { Ok(None) } };
        let (parts, beside) = join(parts, beside).await;
        let mut results = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Ok(part) => results.push(part),
                Err(Refused::Fenced) => return Ok(Tried::Fenced),
                Err(Refused::Status(status)) => return Err(status),
            }
        }
        self.note_uncommitted(file, &results);
        let (count, committed) = write_merge(&results)?;
        let wrote = Wrote { end: write.offset + u64::from(count), ..wrote };
        let known = self.soft.borrow().get(file).map_or(Beyond::Untold, |s| s.beyond(self.small_life()));
        let enough = if stable { Beyond::Durable } else { Beyond::Told };
        if wrote.end > THRESHOLD && known < enough {
            match self.extend(file, epoch, wrote.end, stable).await {
                Ok(()) => {}
                Err(Refused::Fenced) => return Ok(Tried::Fenced),
                Err(Refused::Status(status)) => return Err(status),
            }
        }
        let pushed = if told && grows { Some(self.push(file, Some(wrote)).await?) } else { beside? };
        if self.note_written(wrote, file, pushed.as_ref()) {
            // What may not be evicted must stay bounded: this writer waits for its push.
            self.push(file, None).await?;
        }
        Ok(Tried::Written(count, committed))
    }

    async fn write_part(
        &self,
        job: &Job,
        write: &Write<'_>,
        part: Part,
        epoch: Epoch,
    ) -> Result<WritePart, Refused> {
        let (role, site) = role_of(part.site);
        // The part lies in the data: both are of the same range, which fits memory.
        let at = (part.offset - write.offset) as usize;
        let data = write.data.slice(at..at + part.len as usize);
        let args =
            WriteArgsHead { file: write.fh, offset: part.offset, stable: write.stable, data_len: part.len };
        let make = |table| self.nfs_call(job, Proc3::Write, &args, data.clone(), (table, epoch));
        let got = self
            .routed(role, site, make, |reply, server| {
                let got = write_result(reply)?;
                if let Ok((.., verf)) = got {
                    self.saw(role, server, verf);
                }
                Ok(got.map(|(count, committed, _)| (count, committed)))
            })
            .await?;
        Ok(WritePart { part, got })
    }

    /// Notes the data sites that a COMMIT must reach.
    pub(crate) fn note_uncommitted(&self, file: FileId, parts: &[WritePart]) {
        self.soft.borrow_mut().upsert(file, |state| {
            for p in parts {
                if matches!(p.got, Ok((_, StableHow::Unstable))) {
                    state.uncommitted.wrote(p.part.site);
                }
            }
        });
    }

    /// Notes growth and time, and sees to it that they are pushed. True if too many files are to be pushed already.
    pub(crate) fn note_written(&self, wrote: Wrote, file: FileId, pushed: Option<&Push>) -> bool {
        let (full, first) = {
            let mut soft = self.soft.borrow_mut();
            let (dirty, queued) = soft.upsert(file, |state| {
                state.wrote(wrote, pushed);
                (state.is_dirty(), state.queued)
            });
            let first = dirty && !queued && soft.dirtied(file, self.at());
            (dirty && soft.is_full(), first)
        };
        if first {
            self.start_pushing();
        }
        full
    }

    pub(crate) fn write_reply(
        &self,
        job: &Job,
        after: Option<Fattr3>,
        count: u32,
        committed: StableHow,
        verf: Verifier,
    ) -> Message {
        let result = WriteRes::Ok(WriteOk { wcc: WccData { before: None, after }, count, committed, verf });
        self.make(|w| {
            slice_proto::rpc_msg::encode_success(w, job.xid);
            result.encode(w);
        })
        .into()
    }
}

/// What a data server answered to a WRITE.
pub(crate) type Written = Result<(u32, StableHow, Verifier), NfsStat3>;

pub(crate) fn write_result(reply: Message) -> Result<Written, Fault> {
    let parts = nfs_reply(reply)?;
    match WriteRes::decode(&mut Reader::at(&parts.message.head, parts.body_at)) {
        Ok(res) => Ok(res.into_result().map(|ok| (ok.count, ok.committed, ok.verf))),
        Err(_) => Err(Fault::Failed(NfsStat3::SERVERFAULT)),
    }
}
