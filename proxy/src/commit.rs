//! COMMIT (RFC 1813 section 3.3.21): every data server that holds uncommitted bytes of the file, and the PUSH beside
//! (DESIGN §7, I5, I7). It fails if one fails.

use crate::classify::Target;
use crate::front::{Front, Job};
use crate::merge::commit_merge;
use crate::read::role_of;
use crate::soft::uncommitted::DataSites;
use crate::upstream::{Fault, Fence, Refused, nfs_reply};
use bytes::Bytes;
use futures_util::future::{join, join_all};
use slice_proto::ids::{FileId, Role, ServerId, Site};
use slice_proto::nfs3::{CommitArgs, CommitOk, CommitRes, NfsStat3, Proc3, Verifier, WccData};
use slice_proto::placement::{self, DataSite};
use slice_proto::rpc_msg::encode_success;
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::Message;
use std::rc::Rc;

impl Front {
    /// Answers a COMMIT.
    pub(crate) async fn commit(self: Rc<Self>, job: Job) -> Message {
        match self.try_commit(&job).await {
            Ok((file, verf)) => {
                let result =
                    CommitRes::Ok(CommitOk { wcc: WccData { before: None, after: self.shown(file) }, verf });
                self.make(|w| {
                    encode_success(w, job.xid);
                    result.encode(w);
                })
                .into()
            }
            Err(status) => self.fail(job.xid, job.proc, status),
        }
    }

    async fn try_commit(&self, job: &Job) -> Result<(FileId, Verifier), NfsStat3> {
        let Target::Extent { file, handle, .. } = &job.target else { return Err(NfsStat3::SERVERFAULT) };
        let (file, fh) = (file.file, job.record.get(handle.clone()).unwrap_or_default());
        let known = self.soft.borrow().get(file).is_some_and(|s| s.written && !s.forgotten);
        if !known {
            // Without a record every site under the reach may hold bytes: the reach must be known.
            self.attributes(job, file, fh).await?;
        }
        let sites = self.soft.borrow_mut().upsert(file, |state| {
            let mut sites = state.uncommitted.begin();
            if !known {
                sites.insert(DataSite::Small(placement::small_site(file)));
                placement::block_sites_under(file, state.reach())
                    .for_each(|s| sites.insert(DataSite::Block(s)));
            }
            sites
        });
        // With nothing to push it only asks: beside the data's fsync that costs no time, and the reply's attributes are true.
        let push = async { self.push(file, None).await.map(drop) };
        let (committed, pushed) = join(self.commit_sites(job, fh, file, &sites), push).await;
        let durable = committed.is_ok() && pushed.is_ok();
        self.soft.borrow_mut().update(file, |state| {
            state.uncommitted.end(&sites, durable);
            // Everything is durable now that this µproxy did not know of.
            state.forgotten &= !durable;
        });
        committed?;
        pushed?;
        // As all parts have answered (I7).
        Ok((file, self.shared.verifier.current()))
    }

    /// COMMITs at every server that owns one of the sites; a server is asked once, for one of its sites.
    async fn commit_sites(
        &self,
        job: &Job,
        fh: &[u8],
        file: FileId,
        sites: &DataSites,
    ) -> Result<(), NfsStat3> {
        let small = sites.small().then(|| DataSite::Small(placement::small_site(file)));
        let all = small.into_iter().chain(sites.block().map(DataSite::Block));
        let mut asked: Vec<(Role, Option<ServerId>, Site)> = Vec::new();
        for (role, site) in all.map(role_of) {
            let (_, owner) = self.owner(role, site);
            // Sites that nobody owns (a table not seen yet) are waited for one by one.
            if owner.is_none() || !asked.iter().any(|(r, o, _)| (*r, *o) == (role, owner)) {
                asked.push((role, owner, site));
            }
        }
        let calls = asked.iter().map(|(role, _, site)| self.commit_at(job, fh, file, (*role, *site)));
        commit_merge(join_all(calls).await)
    }

    async fn commit_at(
        &self,
        job: &Job,
        fh: &[u8],
        file: FileId,
        (role, site): (Role, Site),
    ) -> Result<(), NfsStat3> {
        // The whole file: what the client names is part of it.
        let args = CommitArgs { file: fh, offset: 0, count: 0 };
        let read = |reply, server| {
            let parts = nfs_reply(reply)?;
            let result = CommitRes::decode(&mut Reader::at(&parts.message.head, parts.body_at));
            let result = result.map_err(|_| Fault::Failed(NfsStat3::SERVERFAULT))?.into_result();
            if let Ok(ok) = &result {
                self.saw(role, server, ok.verf);
            }
            Ok(result.map(drop))
        };
        let mut fence = Fence::default();
        loop {
            let epoch = self.soft.borrow().get(file).and_then(|s| s.epoch()).unwrap_or_default();
            let make = |table| self.nfs_call(job, Proc3::Commit, &args, Bytes::new(), (table, epoch));
            match self.routed(role, site, make, read).await {
                Ok(result) => return result,
                // Cut since: what was written below the cut is still to be made durable, under the new epoch.
                Err(Refused::Fenced) => {
                    fence.pause().await?;
                    self.getattr(job, file, fh).await?;
                }
                Err(Refused::Status(status)) => return Err(status),
            }
        }
    }
}
