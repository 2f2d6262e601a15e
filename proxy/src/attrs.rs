//! What the µproxy asks and tells a file's home site of its own accord: attributes, growth and times, the reach; and the
//! small-file site, that the file goes beyond the threshold.

use crate::front::{Front, Job};
use crate::reply::{Now, settle};
use crate::soft::file::{Beyond, Push, Wrote};
use crate::upstream::{Fault, Refused, peer_reply};
use bytes::Bytes;
use slice_proto::ids::{Epoch, FileId, Role, TableEpoch};
use slice_proto::nfs3::{Fattr3, GetattrArgs, GetattrRes, NfsStat3, Proc3, Res3};
use slice_proto::peer::PeerProc;
use slice_proto::peer::attrs::{AttrRes, RaiseArgs};
use slice_proto::peer::data::{DataRes, ExtendArgs};
use slice_proto::placement;
use slice_proto::rpc_msg::ACCEPTED_LEN;
use slice_proto::xdr::{Decode, Reader};
use slice_rpc::Message;
use tokio::time::Instant;

impl Front {
    /// The file's attributes, at most a second old, as this µproxy's clients are to see them.
    ///
    /// # Errors
    /// The status with which the client's procedure fails.
    pub(crate) async fn attributes(&self, job: &Job, file: FileId, fh: &[u8]) -> Result<Fattr3, NfsStat3> {
        match self.fresh(file) {
            Some(attr) => Ok(attr),
            None => self.getattr(job, file, fh).await,
        }
    }

    /// The attributes, if they were fetched at most a second ago.
    pub(crate) fn fresh(&self, file: FileId) -> Option<Fattr3> {
        self.soft.borrow().get(file)?.fresh(Instant::now())
    }

    /// The attributes that the reply to a WRITE or COMMIT shows: what is known, with what was written here, if nothing that
    /// has passed since can have made it untrue.
    pub(crate) fn shown(&self, file: FileId) -> Option<Fattr3> {
        self.soft.borrow().shown(file, Instant::now())
    }

    /// The file's attributes, asked of its home site now.
    ///
    /// # Errors
    /// The status with which the client's procedure fails.
    pub(crate) async fn getattr(&self, job: &Job, file: FileId, fh: &[u8]) -> Result<Fattr3, NfsStat3> {
        // A record for settle() to fill.
        self.soft.borrow_mut().upsert(file, |_| ());
        let make = |table| {
            self.nfs_call(job, Proc3::Getattr, &GetattrArgs { object: fh }, Bytes::new(), (table, Epoch(0)))
        };
        let read = |mut reply, _| {
            let verdict = settle(&mut self.soft.borrow_mut(), Proc3::Getattr, job.xid, &mut reply, self);
            Fault::of_verdict(verdict).map_or(Ok(reply), Err)
        };
        let reply = self.routed(Role::Dir, file.home(), make, read).await.map_err(Refused::status)?;
        // An RPC-level refusal is shorter than a result.
        let result = GetattrRes::decode(&mut Reader::at(&reply.head, ACCEPTED_LEN));
        match result {
            Ok(Res3::Ok(attr)) => Ok(attr),
            Ok(Res3::Err(status, ())) => {
                self.failed_at_home(file, status);
                Err(status)
            }
            Err(_) => Err(NfsStat3::SERVERFAULT),
        }
    }

    /// Takes in what the home site said of a file in a private result.
    fn absorb(&self, file: FileId, result: &AttrRes) -> Result<(), NfsStat3> {
        let mut soft = self.soft.borrow_mut();
        soft.clock.learn(result.now_ns, self.local_ns());
        if let Some((encoded, stamp)) = &result.current {
            let attr = Fattr3::decode(&mut Reader::new(encoded)).map_err(|_| NfsStat3::SERVERFAULT)?;
            soft.absorb(file, &attr, *stamp, self.at(), false);
        }
        Ok(())
    }

    fn failed_at_home(&self, file: FileId, status: NfsStat3) {
        if status == NfsStat3::STALE {
            // Its last link is gone: what was to be pushed or committed went with it.
            self.soft.borrow_mut().update(file, |state| state.gone());
        }
    }

    async fn tell_home(&self, file: FileId, args: impl Fn(TableEpoch) -> Message) -> Result<(), NfsStat3> {
        let read = |reply, _| peer_reply::<AttrRes>(reply, |r| (r.status, r.table));
        let result = self.routed(Role::Dir, file.home(), args, read).await.map_err(Refused::status)?;
        self.absorb(file, &result)?;
        match NfsStat3(result.status) {
            NfsStat3::OK => Ok(()),
            status => {
                self.failed_at_home(file, status);
                Err(status)
            }
        }
    }

    /// Pushes what this µproxy has shown of a file, and with it perhaps a write that is under way. Afterwards the
    /// attributes known are the home site's current ones.
    ///
    /// # Errors
    /// The home site's status; STALE if the file is gone.
    pub(crate) async fn push(&self, file: FileId, with: Option<Wrote>) -> Result<Push, NfsStat3> {
        let push = self.soft.borrow_mut().upsert(file, |state| state.push(file, TableEpoch(0), with));
        self.tell_home(file, |table| {
            let mut args = push.args.clone();
            args.table = table;
            self.peer_call(PeerProc::Push, &args)
        })
        .await?;
        self.soft.borrow_mut().update(file, |state| state.pushed(&push));
        Ok(push)
    }

    /// Has the reach raised so that bytes up to `end` may be written under `epoch`. The home site may answer with
    /// another epoch instead: the caller looks at the record again.
    ///
    /// # Errors
    /// The home site's status.
    pub(crate) async fn raise_reach(&self, file: FileId, epoch: Epoch, end: u64) -> Result<(), NfsStat3> {
        let reach = placement::reach_for(end);
        self.tell_home(file, |table| {
            self.peer_call(PeerProc::RaiseReach, &RaiseArgs { table, file, epoch, reach })
        })
        .await
    }

    /// Tells the small-file site that the file goes beyond the threshold.
    ///
    /// # Errors
    /// [`Refused::Fenced`] if the epoch is old, or the small-file site's status.
    pub(crate) async fn extend(
        &self,
        file: FileId,
        epoch: Epoch,
        size: u64,
        stable: bool,
    ) -> Result<(), Refused> {
        let site = placement::small_site(file);
        let life = self.small_life();
        // Where the server's verifier is not known its restart before the COMMIT would not be noticed.
        let known = self.owner(Role::Small, site).1.is_some_and(|server| self.knows(server));
        let durable = stable || !known;
        let make =
            |table| self.peer_call(PeerProc::Extend, &ExtendArgs { table, file, epoch, size, durable });
        let read = |reply, _| peer_reply::<DataRes>(reply, |r| (r.status, r.table));
        let result = self.routed(Role::Small, site, make, read).await?;
        match NfsStat3(result.status) {
            NfsStat3::OK => {
                let how = if durable { Beyond::Durable } else { Beyond::Told };
                self.soft.borrow_mut().update(file, |state| {
                    if how == Beyond::Told {
                        state.uncommitted.wrote(placement::DataSite::Small(site));
                    }
                    state.told_beyond(epoch, how, life);
                });
                Ok(())
            }
            status => Err(Refused::Status(status)),
        }
    }
}
