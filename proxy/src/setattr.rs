//! SETATTR (RFC 1813 section 3.3.2) of a file with something to push: that goes first, so that it is judged before the
//! change and not against it (I6).

use crate::front::{Front, Job, target_file};
use slice_proto::ids::Site;
use slice_proto::nfs3::NfsStat3;
use slice_rpc::Message;
use std::rc::Rc;

impl Front {
    /// Pushes, then forwards.
    pub(crate) async fn setattr(self: Rc<Self>, site: Site, job: Job) -> Message {
        let Some(file) = target_file(&job.target).map(|h| h.file) else {
            return self.fail(job.xid, job.proc, NfsStat3::SERVERFAULT);
        };
        match self.push(file, None).await {
            // A file that is gone says so itself.
            Ok(_) | Err(NfsStat3::STALE) => self.forward_slowly(site, &job, None).await,
            Err(status) => self.fail(job.xid, job.proc, status),
        }
    }
}
