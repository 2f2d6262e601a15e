//! READ (RFC 1813 section 3.3.6): parts side by side, merged as one server would answer (DESIGN §7).
//!
//! A reply never carries attributes, though some are known: a Linux client takes the length of the first READ reply's head
//! on a mount for that of all (`read_hdrsize`), and fails with EIO any later one that is longer. Most replies can have
//! none: those that were not fetched after the READ arrived would hide another client's write from this client's cache
//! (DESIGN §8).

use crate::classify::Target;
use crate::front::{Front, Job};
use crate::merge::{ReadPart, ReadVerdict, read_bytes, read_extent, read_verdict};
use crate::permission::{self, Want};
use crate::upstream::{Fault, Refused, nfs_reply};
use bytes::Bytes;
use futures_util::future::{join, join_all};
use slice_proto::ids::{Epoch, Role, Site};
use slice_proto::nfs3::{FType3, Fattr3, MAX_DATA, NfsStat3, Proc3, ReadArgs, ReadOkHead};
use slice_proto::placement::{self, DataSite, MAX_FILE_SIZE, Part, THRESHOLD};
use slice_proto::rpc_msg::encode_success;
use slice_proto::xdr::{Reader, padding};
use slice_rpc::Message;
use std::rc::Rc;

/// Role and site of the server that holds a part.
pub(crate) const fn role_of(site: DataSite) -> (Role, Site) {
    match site {
        DataSite::Small(site) => (Role::Small, site),
        DataSite::Block(site) => (Role::Block, site),
    }
}

impl Front {
    /// Answers a READ.
    pub(crate) async fn read(self: Rc<Self>, job: Job) -> Message {
        let answer = self.try_read(&job).await;
        answer.unwrap_or_else(|status| self.fail(job.xid, job.proc, status))
    }

    async fn try_read(&self, job: &Job) -> Result<Message, NfsStat3> {
        let Target::Extent { file, handle, offset, count } = &job.target else {
            return Err(NfsStat3::SERVERFAULT);
        };
        if let Some(ftype) = FType3::from_u32(u32::from(file.ftype)) {
            permission::is_file(ftype)?;
        }
        let (file, offset) = (file.file, *offset);
        let fh = job.record.get(handle.clone()).unwrap_or_default();
        // What a file cannot have is not asked for.
        let room = MAX_FILE_SIZE.saturating_sub(offset).min(u64::from(MAX_DATA));
        let count = u64::from(*count).min(room);
        let known = self.fresh(file);
        if let Some(attr) = &known {
            permission::check(attr, &job.cred, Want::Read)?;
        }
        let asked = offset + count;
        // EOF is told exactly. The small-file site knows it; what ends in a stripe unit is the file's end or not by the
        // file's size, which within an epoch only grows.
        let in_block = count > 0 && asked > THRESHOLD;
        let goes_on = self.soft.borrow().get(file).is_some_and(|state| state.size_at_least() > asked);
        let ask = known.is_none() || count == 0 || (in_block && !goes_on);
        let ask_home = async { if ask { self.getattr(job, file, fh).await.map(Some) } else { Ok(None) } };
        // Permission is checked beside the parts: nothing is shown before it stands.
        // count is at most MAX_DATA, a u32.
        let (attr, parts) = join(ask_home, self.read_parts(job, fh, file, offset, count as u32)).await;
        let attr = attr?;
        if let Some(attr) = &attr {
            permission::check(attr, &job.cred, Want::Read)?;
        }
        let parts = parts?;
        let (len, eof) = match read_verdict(&parts) {
            ReadVerdict::Failed(status) => return Err(status),
            ReadVerdict::Done { len, eof } if count > 0 => {
                (len, eof || (in_block && attr.is_some_and(|a| a.size <= asked)))
            }
            ReadVerdict::Done { .. } | ReadVerdict::NeedsEnd => {
                // Asked even where writes here tell of a larger size: somebody may have cut the file since. They are in the
                // attributes if they still stand.
                let attr = match attr {
                    Some(attr) => attr,
                    None => self.getattr(job, file, fh).await?,
                };
                read_extent(offset, count, attr.size)
            }
        };
        Ok(self.read_reply(job, read_bytes(&parts, len), eof))
    }

    async fn read_parts(
        &self,
        job: &Job,
        fh: &[u8],
        file: slice_proto::ids::FileId,
        offset: u64,
        count: u32,
    ) -> Result<Vec<ReadPart>, NfsStat3> {
        // 0, unknown, is allowed: reads are not fenced.
        let epoch = self.soft.borrow().get(file).and_then(|state| state.epoch()).unwrap_or_default();
        let parts: Vec<Part> = placement::split(file, offset, count).collect();
        join_all(parts.into_iter().map(|part| self.read_part(job, fh, part, epoch)))
            .await
            .into_iter()
            .collect()
    }

    /// Asks for one part. A server's own status is part of the result, anything else an error.
    async fn read_part(&self, job: &Job, fh: &[u8], part: Part, epoch: Epoch) -> Result<ReadPart, NfsStat3> {
        let (role, site) = role_of(part.site);
        let args = ReadArgs { file: fh, offset: part.offset, count: part.len };
        let make = |table| self.nfs_call(job, Proc3::Read, &args, Bytes::new(), (table, epoch));
        let got =
            self.routed(role, site, make, |reply, _| read_result(reply)).await.map_err(Refused::status)?;
        Ok(ReadPart { part, got })
    }

    fn read_reply(&self, job: &Job, data: Bytes, eof: bool) -> Message {
        let data_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let head = self.make(|w| {
            encode_success(w, job.xid);
            ReadOkHead { attr: None, eof, data_len }.encode_ok(w);
        });
        let pad = padding(data.len());
        let tail = if pad == 0 { Default::default() } else { self.make(|w| w.resize(pad, 0)) };
        Message { head, body: data, tail }
    }
}

/// What a data server answered to a READ: its bytes, without a copy, and its EOF.
fn read_result(reply: Message) -> Result<Result<(Bytes, bool), NfsStat3>, Fault> {
    let parts = nfs_reply(reply)?;
    let broken = |_| Fault::Failed(NfsStat3::SERVERFAULT);
    let mut r = Reader::at(&parts.message.head, parts.body_at);
    let status = NfsStat3(r.u32().map_err(broken)?);
    if status != NfsStat3::OK {
        return Ok(Err(status));
    }
    r.option(|r| r.take(Fattr3::ENCODED_LEN)).map_err(broken)?;
    let (_count, eof) = (r.u32().map_err(broken)?, r.bool().map_err(broken)?);
    let len = r.len(MAX_DATA).map_err(broken)? as usize;
    let at = r.position();
    let data = if parts.message.body.is_empty() {
        let head = parts.message.head.freeze();
        if head.len() < at + len {
            return Err(Fault::Failed(NfsStat3::SERVERFAULT));
        }
        head.slice(at..at + len)
    } else if parts.message.body.len() == len && parts.message.head.len() == at {
        parts.message.body
    } else {
        return Err(Fault::Failed(NfsStat3::SERVERFAULT));
    };
    Ok(Ok((data, eof)))
}
