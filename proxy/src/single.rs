//! READ and WRITE of a single part: the client's own record goes to the data server by token, and its reply, patched in
//! place, comes back: no future, no copy. Whatever is not that simple — permission not known, a short part, a fence, a
//! reach to be raised — is done again from the start by `read.rs` and `write.rs`; both procedures may be repeated.

use crate::classify::Target;
use crate::forward::Way;
use crate::front::{Front, Job};
use crate::merge::{WritePart, write_merge};
use crate::permission::{self, Want};
use crate::reply::Now;
use crate::soft::file::{Beyond, Wrote};
use crate::upstream::{Fault, cut_trailer};
use crate::write::{Written, write_result};
use slice_proto::handle::Handle;
use slice_proto::ids::{Epoch, TableEpoch};
use slice_proto::nfs3::{NfsStat3, StableHow, Verifier};
use slice_proto::placement::{self, DataSite, MAX_FILE_SIZE, Part, THRESHOLD};
use slice_proto::rpc_msg::patch_xid;
use slice_proto::trailer::CALL_TRAILER_LEN;
use slice_proto::xdr::{Reader, padding};
use slice_rpc::Message;

/// `ftype3` of a regular file.
const REGULAR: u8 = 1;

/// A WRITE of one part that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    part: Part,
    wrote: Wrote,
    /// The verifier as the request arrived (I7).
    verf: Verifier,
}

impl Sent {
    /// Where it goes.
    pub(crate) const fn site(&self) -> DataSite {
        self.part.site
    }
}

fn only_part(file: &Handle, offset: u64, len: u64) -> Option<Part> {
    if file.ftype != REGULAR || offset.checked_add(len)? > MAX_FILE_SIZE {
        return None;
    }
    let mut parts = placement::split(file.file, offset, u32::try_from(len).ok()?);
    let only = parts.next()?;
    parts.next().is_none().then_some(only)
}

impl Front {
    /// The way of a READ, if it is of one part and permitted by what is known.
    pub(crate) fn single_read(&self, job: &Job) -> Option<(Way, Epoch)> {
        let Target::Extent { file, offset, count, .. } = &job.target else { return None };
        let part = only_part(file, *offset, u64::from(*count))?;
        let soft = self.soft.borrow();
        let state = soft.get(file.file)?;
        permission::check(&state.fresh(self.at())?, &job.cred, Want::Read).ok()?;
        // EOF is told exactly: what may end in a stripe unit takes the size, too.
        let end = part.offset + u64::from(part.len);
        if matches!(part.site, DataSite::Block(_)) && state.size_at_least() <= end {
            return None;
        }
        Some((Way::Read(part), state.epoch()?))
    }

    /// The way of a WRITE, if it is unstable, of one part, permitted by what is known, and nothing need go beside it.
    pub(crate) fn single_write(&self, job: &Job) -> Option<(Way, Epoch)> {
        let Target::Write { file, offset, stable: StableHow::Unstable, data, .. } = &job.target else {
            return None;
        };
        // A record that has more data than it counts is not sent on as it is.
        let counted = Reader::at(&job.record, data.start.checked_sub(4)?).u32().ok()?;
        let part = only_part(file, *offset, data.len() as u64).filter(|part| part.len == counted)?;
        let end = part.offset + u64::from(part.len);
        let soft = self.soft.borrow();
        let state = soft.get(file.file).filter(|s| s.reach() >= end)?;
        let attr = soft.shown(file.file, self.at())?;
        permission::check(&attr, &job.cred, Want::Write).ok()?;
        let told = end <= THRESHOLD || state.beyond(self.small_life()) != Beyond::Untold;
        if !told || permission::clears_set_ids(attr.mode, &job.cred) || soft.is_full() {
            return None;
        }
        let epoch = state.epoch()?;
        let time_ns = state.next_stamp(soft.clock.at(self.local_ns()));
        let wrote = Wrote { epoch, end, time_ns, clear_set_ids: false };
        Some((Way::Write(Sent { part, wrote, verf: self.shared.verifier.current() }), epoch))
    }

    /// The client's record with the call trailer behind it; a WRITE's data stays where it lies.
    pub(crate) fn forwarded_data(&self, job: &Job, table: TableEpoch, epoch: Epoch) -> Message {
        let trailer = self.trailer(job, table, epoch);
        match &job.target {
            Target::Write { data, .. } => {
                let head =
                    self.make(|w| w.extend_from_slice(job.record.get(..data.start).unwrap_or_default()));
                let tail = self.make(|w| {
                    w.resize(padding(data.len()), 0);
                    trailer.append(w);
                });
                Message { head, body: job.record.slice(data.clone()), tail }
            }
            _ => self
                .make(|w| {
                    w.reserve(job.record.len() + CALL_TRAILER_LEN);
                    w.extend_from_slice(&job.record);
                    trailer.append(w);
                })
                .into(),
        }
    }

    /// Makes a data server's reply to a READ of one part the client's.
    ///
    /// # Errors
    /// A [`Fault`] if it is not the whole answer.
    pub(crate) fn finish_read(&self, job: &Job, part: Part, reply: &mut Message) -> Result<(), Fault> {
        let body_at = cut_trailer(reply)?;
        let again = Fault::Failed(NfsStat3::SERVERFAULT);
        patch_xid(&mut reply.head, job.xid);
        // status, no attributes, count, eof, length
        let mut r = Reader::at(&reply.head, body_at);
        let mut word = || r.u32().map_err(|_| again);
        let (status, attr, count, eof, len) = (word()?, word()?, word()?, word()?, word()?);
        let there = reply.len() == body_at + 20 + len as usize + padding(len as usize);
        if status != 0 || attr != 0 || count != len || !there || len > part.len {
            return Err(again);
        }
        match part.site {
            DataSite::Small(_) if len == part.len || eof == 1 => Ok(()),
            // A storage node's EOF only says that it has no more, and the file is known to go on.
            DataSite::Block(_) if len == part.len => {
                let eof_at = body_at + 12;
                reply.head.get_mut(eof_at..eof_at + 4).ok_or(again)?.fill(0);
                Ok(())
            }
            _ => Err(again),
        }
    }

    /// Makes a data server's reply to a WRITE of one part the client's.
    ///
    /// # Errors
    /// A [`Fault`] if it must be written again.
    pub(crate) fn finish_write(&self, job: &Job, sent: &Sent, reply: Message) -> Result<Message, Fault> {
        let Target::Write { file, .. } = &job.target else {
            return Err(Fault::Failed(NfsStat3::SERVERFAULT));
        };
        let got: Written = write_result(reply)?;
        if let Ok((.., verf)) = got {
            let (role, site) = crate::read::role_of(sent.part.site);
            // The owner may have changed since it was sent: then this thread has raised the verifier already.
            if let (_, Some(server)) = self.owner(role, site) {
                self.saw(role, server, verf);
            }
        }
        let results = [WritePart { part: sent.part, got: got.map(|(count, how, _)| (count, how)) }];
        self.note_uncommitted(file.file, &results);
        let (count, committed) = match write_merge(&results) {
            Ok(written) => written,
            Err(status) => return Ok(self.fail(job.xid, job.proc, status)),
        };
        let end = sent.part.offset + u64::from(count);
        self.note_written(Wrote { end, ..sent.wrote }, file.file, None);
        Ok(self.write_reply(job, self.shown(file.file), count, committed, sent.verf))
    }
}
