//! READDIR and READDIRPLUS (RFC 1813 sections 3.3.16, 3.3.17) where a directory's entries are spread over several
//! servers: each is asked for its share, the home site's server has the verdict, the entries are merged (I2).

use crate::front::{Front, Job};
use crate::listing::{Budget, Listed, Merged, Page, merge, share};
use crate::reply::settle;
use crate::upstream::{Fault, Refused};
use bytes::BytesMut;
use futures_util::future::join_all;
use slice_proto::ids::{Role, ServerId, Site};
use slice_proto::nfs3::readdir::{Listing, encode_end, encode_entry};
use slice_proto::nfs3::{Entry, EntryPlus, NfsStat3, Proc3, ReaddirArgs, ReaddirOkHead, ReaddirplusArgs};
use slice_proto::rpc_msg::{ACCEPTED_LEN, CallHeader};
use slice_proto::trailer::CALL_TRAILER_LEN;
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::Message;
use std::rc::Rc;

/// Least count that a server is asked with: the longest name with attributes and handle fits.
const FLOOR: u32 = 1024;

/// The procedure's own fields.
enum Asked<'a> {
    Plain(ReaddirArgs<'a>),
    Plus(ReaddirplusArgs<'a>),
}

impl Asked<'_> {
    fn budget(&self) -> Budget {
        match self {
            Self::Plain(a) => Budget { total: a.count as usize, dir: 0 },
            Self::Plus(a) => Budget { total: a.maxcount as usize, dir: a.dircount as usize },
        }
    }

    /// The arguments for one of `servers`.
    fn put_share(&self, servers: usize, w: &mut BytesMut) {
        match self {
            Self::Plain(a) => ReaddirArgs { count: share(a.count, servers, FLOOR), ..*a }.encode(w),
            Self::Plus(a) => {
                let dircount = share(a.dircount, servers, FLOOR);
                ReaddirplusArgs { dircount, maxcount: share(a.maxcount, servers, FLOOR), ..*a }.encode(w);
            }
        }
    }
}

impl Front {
    /// Answers a READDIR or READDIRPLUS of a spread directory.
    pub(crate) async fn readdir(self: Rc<Self>, home: Site, job: Job) -> Message {
        let answer = self.try_readdir(home, &job).await;
        answer.unwrap_or_else(|status| self.fail(job.xid, job.proc, status))
    }

    async fn try_readdir(&self, home: Site, job: &Job) -> Result<Message, NfsStat3> {
        // The record was classified: its header can be read.
        let args_at = CallHeader::decode(&job.record).map_err(|_| NfsStat3::SERVERFAULT)?.args_at;
        let mut r = Reader::at(&job.record, args_at);
        let asked = match job.proc {
            Proc3::Readdirplus => ReaddirplusArgs::decode(&mut r).map(Asked::Plus),
            _ => ReaddirArgs::decode(&mut r).map(Asked::Plain),
        };
        let asked = asked.map_err(|_| NfsStat3::INVAL)?;
        let header = job.record.get(..args_at).unwrap_or_default();
        let mut shares = self.directory_servers(home).len();
        loop {
            let replies = self.ask_all(home, job, header, &asked, shares).await?;
            let small = |status| status == NfsStat3::TOOSMALL && shares > 1;
            match self.merged(job, &asked, &replies) {
                Err(status) if small(status) => {}
                other => return other,
            }
            // Somebody's first entry does not fit into its share: each is asked with the whole.
            shares = 1;
        }
    }

    /// One site of every directory server, the home site's first.
    fn directory_servers(&self, home: Site) -> Vec<(Option<ServerId>, Site)> {
        self.with_table(|table| {
            let mut all = vec![(table.owner(Role::Dir, home), home)];
            for (n, owners) in (0u16..).zip(&table.dir) {
                if !all.iter().any(|(owner, _)| owner.as_ref() == owners.first()) {
                    all.push((owners.first().copied(), Site(n)));
                }
            }
            all
        })
    }

    /// The replies of all directory servers, the home site's first, attributes patched.
    async fn ask_all(
        &self,
        home: Site,
        job: &Job,
        header: &[u8],
        asked: &Asked<'_>,
        shares: usize,
    ) -> Result<Vec<Message>, NfsStat3> {
        let make = |table| {
            let trailer = self.trailer(job, table, Default::default());
            self.make(|w| {
                w.reserve(job.record.len() + CALL_TRAILER_LEN);
                w.extend_from_slice(header);
                asked.put_share(shares, w);
                trailer.append(w);
            })
            .into()
        };
        let read = |mut reply, _| {
            let verdict = settle(&mut self.soft.borrow_mut(), job.proc, job.xid, &mut reply, self);
            Fault::of_verdict(verdict).map_or(Ok(reply), Err)
        };
        loop {
            let servers = self.directory_servers(home);
            let calls = servers.iter().map(|(_, site)| self.routed(Role::Dir, *site, make, read));
            let replies: Result<Vec<_>, _> = join_all(calls).await.into_iter().collect();
            let replies = replies.map_err(Refused::status)?;
            // If sites moved while we asked, a server may have been left out.
            if self.directory_servers(home) == servers {
                return Ok(replies);
            }
        }
    }

    fn merged(&self, job: &Job, asked: &Asked<'_>, replies: &[Message]) -> Result<Message, NfsStat3> {
        match asked {
            Asked::Plain(_) => self.merged_as::<Entry<'_>>(job, asked.budget(), replies),
            Asked::Plus(_) => self.merged_as::<EntryPlus<'_>>(job, asked.budget(), replies),
        }
    }

    fn merged_as<'a, E: Listed + Encode + Decode<'a>>(
        &self,
        job: &Job,
        budget: Budget,
        replies: &'a [Message],
    ) -> Result<Message, NfsStat3> {
        let mut head = None;
        let mut pages = Vec::with_capacity(replies.len());
        for (n, reply) in replies.iter().enumerate() {
            let broken = |_| NfsStat3::SERVERFAULT;
            let mut r = Reader::at(&reply.head, ACCEPTED_LEN);
            match NfsStat3(r.u32().map_err(broken)?) {
                NfsStat3::OK => {}
                // The home site's failure is the directory's, attributes included.
                status if n == 0 && status != NfsStat3::TOOSMALL => {
                    return Ok(Message::from(self.copy(&reply.head)));
                }
                status => return Err(status),
            }
            let page: Listing<E> = Listing::decode(&mut r).map_err(broken)?;
            head.get_or_insert(ReaddirOkHead { dir_attr: page.dir_attr, verf: page.verf });
            pages.push(Page { entries: page.entries, eof: page.eof });
        }
        let head = head.ok_or(NfsStat3::SERVERFAULT)?;
        let page = match merge(pages, head.encoded_len(), budget) {
            Merged::Page(page) => page,
            Merged::TooSmall | Merged::Stuck => return Err(NfsStat3::TOOSMALL),
        };
        Ok(self.succeed(job.xid, |w| {
            head.encode(w);
            page.entries.iter().for_each(|entry| encode_entry(w, entry));
            encode_end(w, page.eof);
        }))
    }
}
