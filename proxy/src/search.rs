//! LOOKUP (RFC 1813 section 3.3.3) where the entry is at another server than the directory's attributes: search permission
//! is checked here, from attributes at most a second old (DESIGN §8).

use crate::front::{Front, Job, target_file};
use crate::permission;
use futures_util::future::join;
use slice_proto::ids::Site;
use slice_proto::nfs3::NfsStat3;
use slice_rpc::Message;
use std::rc::Rc;

impl Front {
    /// Whether the caller may search the directory; `None` if that is not known.
    pub(crate) fn may_search(&self, job: &Job) -> Option<Result<(), NfsStat3>> {
        let attr = self.fresh(target_file(&job.target)?.file)?;
        Some(permission::search(&attr, &job.cred))
    }

    /// Asks for the directory's attributes beside the entry: nothing is shown before permission stands.
    pub(crate) async fn search(self: Rc<Self>, site: Site, job: Job) -> Message {
        let (xid, proc, cred) = (job.xid, job.proc, job.cred);
        let Some(dir) = target_file(&job.target).copied() else {
            return self.fail(xid, proc, NfsStat3::SERVERFAULT);
        };
        let fh = self.seal(&dir);
        let attr = async { self.getattr(&job, dir.file, &fh).await };
        let (attr, reply) = join(attr, self.forward_slowly(site, &job, None)).await;
        match attr.and_then(|attr| permission::search(&attr, &cred)) {
            Ok(()) => reply,
            Err(status) => self.fail(xid, proc, status),
        }
    }
}
