//! INSPECT and REPAIR (`slice_proto::peer::repair`): what `slice admin check --repair` looks at, and changes.
//!
//! Whoever repairs has looked at all servers, one after the other, while clients may be at work. So every repair compares
//! what it is about to change with what was seen, under the locks that every other change takes, and is void if it differs.
//! A file's bytes are at other servers, whose writers do not ask here; they are shut out before it is compared:
//!
//! ```text
//! hold, veil record ─▶ as seen? ─▶ T record: fence, epoch e   durable
//!   EXTEND by nothing, TRUNCATE of nothing, under e           durable: late writers are refused, and wait for the record
//!   STAT ─▶ as seen? ── no ─▶ record gets e; T record goes    void
//!   T record: cut, e + 1 ─▶ as SETATTR of a size does         docs/wire.md, "Data path"
//! ```
//! A crash on the way finds the T record, and finishes the step that it names.

use crate::data::{fence, held};
use crate::decide::{At, Change, Missing, View};
use crate::error::Error;
use crate::keys;
use crate::lists::attr_info;
use crate::owed::attr_key;
use crate::records::{AttrRec, Resize, ResizeKind};
use crate::resize::{Holding, truncate};
use crate::routes::Routes;
use crate::server::{Admission, Inner};
use crate::state::locks::Standing;
use crate::state::status_of;
use crate::tx::attempt::{Attempt, Fresh, Ground};
use crate::tx::local::add;
use bytes::Bytes;
use slice_proto::handle::Handle;
use slice_proto::ids::{Epoch, FileId, Site, TableEpoch};
use slice_proto::nfs3::{FType3, NfsStat3};
use slice_proto::peer::PrivateStatus;
use slice_proto::peer::repair::{
    CountsRepair, InspectArgs, InspectRes, MakeRepair, NameRepair, Repair, RepairArgs, RepairRes, Seen,
    SizeRepair,
};
use slice_store::{Batch, Ticket};
use std::sync::Arc;

/// Why a repair was not done.
enum Not {
    /// What it saw has changed.
    Void,
    /// Refused: an nfsstat3 or a private status.
    Refused(u32),
    /// The store failed.
    Failed(Error),
}

impl From<Error> for Not {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<slice_store::Error> for Not {
    fn from(error: slice_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<PrivateStatus> for Not {
    fn from(status: PrivateStatus) -> Self {
        Self::Refused(status as u32)
    }
}

impl From<Missing> for Not {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Fail(error) => Self::Failed(error),
            Missing::Busy(_) => PrivateStatus::Retry.into(),
            // Everything that a repair touches is at sites of ours that it has locked, and may be read from the store.
            _ => Self::Refused(NfsStat3::SERVERFAULT.0),
        }
    }
}

fn seen(file: FileId, rec: &AttrRec) -> Seen {
    Seen { attr: attr_info(file, rec), ctime_ns: rec.ctime_ns, volume: rec.volume, policy: rec.policy }
}

/// Waits until a call by `table` about `site` can be judged: whether it is for this server (I4), and settled enough to repair.
async fn admit(inner: &Inner, table: TableEpoch, site: impl Fn(&Routes) -> Option<Site>) -> Result<(), Not> {
    loop {
        let routes = inner.routes();
        if table > routes.epoch() {
            inner.table_at_least(table).await;
            continue;
        }
        let site = site(&routes).ok_or(Not::Refused(NfsStat3::STALE.0))?;
        match inner.admit(&routes, table, site) {
            Admission::Yes => {}
            Admission::Wait => continue,
            Admission::No(status) => return Err(status.into()),
        }
        // After a restart it is not known yet what peers' operations hold here.
        return if routes.alone || inner.reconciled.is_open() {
            Ok(())
        } else {
            Err(PrivateStatus::Retry.into())
        };
    }
}

/// INSPECT.
pub(crate) async fn inspect(inner: Arc<Inner>, args: InspectArgs) -> InspectRes {
    let refused = |status| InspectRes { status, seen: None };
    match look(&inner, &args).await {
        Ok(seen) => InspectRes { status: 0, seen },
        Err(Not::Refused(status)) => refused(status),
        Err(Not::Failed(error)) => refused(status_of(&error).0),
        Err(Not::Void) => refused(NfsStat3::SERVERFAULT.0),
    }
}

async fn look(inner: &Inner, args: &InspectArgs) -> Result<Option<Seen>, Not> {
    let file = args.file;
    admit(inner, args.table, |_| Some(file.home())).await?;
    let cell = {
        let site = inner.state.site(file.home()).ok_or(Not::Refused(NfsStat3::SERVERFAULT.0))?;
        if site.locks.standing(&attr_key(file), None) != Standing::Free {
            return Err(PrivateStatus::Retry.into());
        }
        inner.state.attr_locked(file)?
    };
    // Nothing is shown that a crash could take back; that there is no record, neither.
    let ticket = cell.as_ref().map_or_else(|| inner.state.store.submitted(), |c| c.ticket);
    inner.state.store.wait(ticket).await?;
    Ok(cell.map(|c| seen(file, &c.rec)))
}

/// REPAIR.
pub(crate) async fn repair(inner: Arc<Inner>, args: RepairArgs) -> RepairRes {
    // To its end, also when the caller goes away half-way. It fails only if the task panicked.
    let task = tokio::task::spawn_local(async move { run(&inner, args).await });
    let res = |status, done| RepairRes { status, done };
    match task.await {
        Ok(Ok(())) => res(0, true),
        Ok(Err(Not::Void)) => res(0, false),
        Ok(Err(Not::Refused(status))) => res(status, false),
        Ok(Err(Not::Failed(error))) => {
            tracing::error!(%error, "a repair failed");
            res(status_of(&error).0, false)
        }
        Err(_) => res(NfsStat3::SERVERFAULT.0, false),
    }
}

async fn run(inner: &Arc<Inner>, RepairArgs { table, repair }: RepairArgs) -> Result<(), Not> {
    let home = |file: FileId| move |_: &Routes| Some(file.home());
    let ticket = match &repair {
        Repair::Name(r) => {
            admit(inner, table, |routes| entry_site(routes, r)).await?;
            name(inner, r)?
        }
        Repair::Counts(r) => {
            admit(inner, table, home(r.seen.attr.file)).await?;
            counts(inner, r)?
        }
        Repair::Make(r) => {
            admit(inner, table, home(r.dir)).await?;
            make(inner, r)?
        }
        Repair::Size(r) => {
            admit(inner, table, home(r.seen.attr.file)).await?;
            size(inner, r).await?
        }
    };
    inner.state.store.wait(ticket).await?;
    tracing::warn!(?repair, "repaired");
    Ok(())
}

/// Where a name stands, as operations find it.
fn at(r: &NameRepair) -> At<'_> {
    let dir = Handle { ftype: FType3::Dir as u8, volume: r.volume, policy: 0, file: r.dir, snapshot: 0 };
    At { dir, name: &r.name }
}

fn entry_site(routes: &Routes, r: &NameRepair) -> Option<Site> {
    Some(at(r).key(routes.volume(r.volume)?).site)
}

fn name(inner: &Inner, r: &NameRepair) -> Result<Ticket, Not> {
    let routes = inner.routes();
    let volume = routes.volume(r.volume).ok_or(Not::Refused(NfsStat3::STALE.0))?;
    let key = at(r).key(volume);
    one_record(inner, &routes, key.site, |attempt| {
        if attempt.child(key)?.map(|c| c.file) != r.from {
            return Err(Not::Void);
        }
        Ok(attempt.stage(key.change(r.from, r.to))?)
    })
}

fn counts(inner: &Inner, r: &CountsRepair) -> Result<Ticket, Not> {
    let file = r.seen.attr.file;
    one_record(inner, &inner.routes(), file.home(), |attempt| {
        let cell = attempt.attr(file)?.ok_or(Not::Void)?;
        let rec = &cell.rec;
        if seen(file, rec) != r.seen {
            return Err(Not::Void);
        }
        let mut new = AttrRec { nlink: r.nlink, ctime_ns: rec.next_ctime(inner.now_ns()), ..rec.clone() };
        if rec.is_dir() {
            (new.parent, new.entries) = (r.parent, r.entries);
        }
        Ok(attempt.stage(Change::Set(file, Box::new(new)))?)
    })
}

fn make(inner: &Inner, r: &MakeRepair) -> Result<Ticket, Not> {
    one_record(inner, &inner.routes(), r.dir.home(), |attempt| {
        if attempt.attr(r.dir)?.is_some() {
            return Err(Not::Void);
        }
        let mut rec = AttrRec::new(FType3::Dir, r.volume, r.policy, r.mode, r.uid, r.gid, inner.now_ns());
        (rec.nlink, rec.parent, rec.entries) = (r.nlink, r.parent, r.entries);
        // It was read, and so has an image.
        Ok(attempt.stage(Change::Set(r.dir, Box::new(rec)))?)
    })
}

/// Compares and sets one record of ours: one batch, under the site's lock. Refused while an operation holds the record.
fn one_record(
    inner: &Inner,
    routes: &Routes,
    site: Site,
    change: impl FnOnce(&mut Attempt<'_>) -> Result<(), Not>,
) -> Result<Ticket, Not> {
    let mut sites = Vec::new();
    add(&mut sites, site);
    let mut fresh = Fresh::new();
    let ground = Ground { inner, routes, op: None, held: None };
    let mut attempt = Attempt::new(ground, &sites, &mut fresh, true);
    change(&mut attempt)?;
    Ok(attempt.commit(None, &[], Batch::new())?.due.ticket)
}

/// Makes a file's data servers agree with the size in its record.
async fn size(inner: &Arc<Inner>, r: &SizeRepair) -> Result<Ticket, Not> {
    let file = r.seen.attr.file;
    let holding = Holding::of(inner, file).await;
    let cell = inner.state.attr(file)?.ok_or(Not::Void)?;
    let rec = &cell.rec;
    if seen(file, rec) != r.seen || rec.ftype != FType3::Reg {
        return Err(Not::Void);
    }
    let (size, reach) = (rec.size, rec.reach.max(r.reach));
    let epoch = Epoch(rec.epoch.max(r.past).0 + 1);
    let mut resize = Resize { kind: ResizeKind::Fence, epoch, size, reach, call: Bytes::new() };
    holding.veil();
    let mut batch = Batch::new();
    batch.put(keys::resize(file), resize.encode());
    inner.state.store.commit(batch)?.await?;
    if !fence(inner, file, epoch, reach).await || held(inner, file, reach).await != Some(r.held) {
        // Data servers may refuse writers of the old epoch by now: the record says the new one.
        let ticket = holding.set_size(&resize)?;
        inner.state.store.wait(ticket).await?;
        return Err(Not::Void);
    }
    resize.kind = ResizeKind::Cut;
    resize.epoch = Epoch(epoch.0 + 1);
    let id = truncate(&holding, &mut resize, false).await?;
    let ticket = holding.set_size(&resize)?;
    inner.owed.completed(id);
    Ok(ticket)
}
