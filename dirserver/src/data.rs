//! What the home site of a file asks of its data servers, and of the coordinator (docs/wire.md, "Data path").
//!
//! All of it is idempotent and none of it may be left undone, so everything here asks until it is answered.

use crate::routes::Routes;
use crate::server::Inner;
use crate::tx::talk::{RETRY, ask};
use futures_util::future::join_all;
use slice_proto::ids::{Epoch, FileId, IntentionId, Role, ServerId, Site};
use slice_proto::peer::data::{DataRes, ExtendArgs, ObjectsRes, PurgeArgs, Sites, StatArgs, TruncateArgs};
use slice_proto::peer::intent::{CompleteArgs, Intent, IntentKind, LogArgs, LogRes, MAX_COMPLETED};
use slice_proto::peer::repair::Held;
use slice_proto::peer::{PeerProc, PrivateStatus};
use slice_proto::placement::{MAX_FILE_SIZE, THRESHOLD, block_sites_under, small_site};
use std::collections::BTreeMap;
use std::sync::Arc;

const FENCED: u32 = PrivateStatus::Fenced as u32;

/// What is cut off.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// Everything at and past a size.
    To(u64),
    /// Everything.
    All,
}

/// Cuts a file at every data site under its reach. Returns once all have applied it durably; if one knows a newer epoch
/// than `epoch`, that one.
pub(crate) async fn cut(
    inner: &Arc<Inner>,
    file: FileId,
    epoch: Epoch,
    reach: u64,
    how: Cut,
) -> Option<Epoch> {
    let mut sites = vec![(Role::Small, small_site(file))];
    sites.extend(block_sites_under(file, reach).map(|s| (Role::Block, s)));
    let mut newer = None;
    // Usually one round: each server once, with all of its sites.
    while !sites.is_empty() {
        let routes = inner.routes();
        let mut by_server: BTreeMap<Option<ServerId>, Vec<(Role, Site)>> = BTreeMap::new();
        for (role, site) in sites {
            by_server.entry(routes.table.owner(role, site)).or_default().push((role, site));
        }
        let asked = by_server.into_iter().map(|(server, sites)| async move {
            let done = match server {
                Some(server) => cut_at(inner, server, &sites, file, epoch, how).await,
                None => None,
            };
            (sites, done)
        });
        let mut left = Vec::new();
        for (sites, done) in join_all(asked).await {
            match done {
                Some(at) if at > epoch => newer = newer.max(Some(at)),
                Some(_) => {}
                None => left.extend(sites),
            }
        }
        if !left.is_empty() {
            inner.table_after(&routes, RETRY).await;
        }
        sites = left;
    }
    newer
}

/// The object's epoch afterwards; `None` if the server could not be asked, or could not do it.
async fn cut_at(
    inner: &Arc<Inner>,
    server: ServerId,
    sites: &[(Role, Site)],
    file: FileId,
    epoch: Epoch,
    how: Cut,
) -> Option<Epoch> {
    let table = inner.routes().epoch();
    let sites = Sites(sites.iter().map(|(_, s)| *s).collect());
    let res = match how {
        Cut::To(size) => {
            let args = TruncateArgs { table, sites, file, epoch, size };
            ask::<DataRes>(inner, server, PeerProc::Truncate, &args).await
        }
        Cut::All => {
            let args = PurgeArgs { table, sites, file, epoch };
            ask::<DataRes>(inner, server, PeerProc::Purge, &args).await
        }
    };
    judge(server, res.map(|r| (r.status, r.epoch)))
}

fn judge(server: ServerId, res: Result<(u32, Epoch), crate::tx::talk::Trouble>) -> Option<Epoch> {
    match res {
        Ok((0 | FENCED, epoch)) => return Some(epoch),
        Ok((status, _)) => {
            tracing::warn!(%server, status, "a data server could not do what a file's home asked")
        }
        Err(error) => tracing::warn!(%error, %server, "a data server could not be asked"),
    }
    None
}

/// Tells the small-file site that a file has grown; durable when it returns. If it knows a newer epoch, it knows better.
pub(crate) async fn extend(inner: &Arc<Inner>, file: FileId, epoch: Epoch, size: u64) {
    loop {
        let routes = inner.routes();
        if let Some(server) = routes.table.owner(Role::Small, small_site(file)) {
            let args = ExtendArgs { table: routes.epoch(), file, epoch, size, durable: true };
            let res = ask::<DataRes>(inner, server, PeerProc::Extend, &args).await;
            if judge(server, res.map(|r| (r.status, r.epoch))).is_some() {
                return;
            }
        }
        inner.table_after(&routes, RETRY).await;
    }
}

/// Shuts writers of epochs below `epoch` out at every data site under `reach`, and changes nothing. Whether all have done so,
/// durably: a server that cannot be asked, or has purged the file, has not.
pub(crate) async fn fence(inner: &Arc<Inner>, file: FileId, epoch: Epoch, reach: u64) -> bool {
    let routes = inner.routes();
    let table = routes.epoch();
    let done =
        |server, res: Result<DataRes, _>| judge(server, res.map(|r| (r.status, r.epoch))) == Some(epoch);
    let Some(small) = routes.table.owner(Role::Small, small_site(file)) else { return false };
    let args = ExtendArgs { table, file, epoch, size: 0, durable: true };
    if !done(small, ask(inner, small, PeerProc::Extend, &args).await) {
        return false;
    }
    for (server, sites) in block_servers(&routes, file, reach) {
        // No byte lies at or past this.
        let args = TruncateArgs { table, sites, file, epoch, size: MAX_FILE_SIZE };
        if !done(server, ask(inner, server, PeerProc::Truncate, &args).await) {
            return false;
        }
    }
    true
}

/// What the data servers under `reach` hold of a file; `None` if one cannot be asked, or has purged it.
pub(crate) async fn held(inner: &Arc<Inner>, file: FileId, reach: u64) -> Option<Held> {
    let routes = inner.routes();
    let args = StatArgs { table: routes.epoch(), file };
    let stat = async |server| {
        let res: ObjectsRes = ask(inner, server, PeerProc::Stat, &args).await.ok()?;
        let fine = res.status == 0 && res.objects.iter().all(|o| !o.tombstone);
        fine.then(|| res.objects.into_iter().next())
    };
    let small = stat(routes.table.owner(Role::Small, small_site(file))?).await?;
    let mut held = Held { small: 0, beyond: false, end: 0 };
    if let Some(o) = small {
        (held.small, held.beyond) = (o.size, o.beyond);
    }
    for (server, _) in block_servers(&routes, file, reach) {
        held.end = held.end.max(stat(server).await?.map_or(0, |o| o.size));
    }
    Some(held)
}

/// The storage nodes that own a site of the file under `reach`, with those sites.
fn block_servers(routes: &Routes, file: FileId, reach: u64) -> BTreeMap<ServerId, Sites> {
    let mut servers: BTreeMap<ServerId, Sites> = BTreeMap::new();
    for site in block_sites_under(file, reach) {
        if let Some(server) = routes.table.owner(Role::Block, site) {
            servers.entry(server).or_default().0.push(site);
        }
    }
    servers
}

/// Logs an intention at the coordinator, if the operation visits more than the small-file site.
pub(crate) async fn intend(
    inner: &Arc<Inner>,
    kind: IntentKind,
    file: FileId,
    epoch: Epoch,
    size: u64,
    reach: u64,
) -> Option<IntentionId> {
    if reach <= THRESHOLD {
        return None;
    }
    let args = LogArgs { intent: Intent { kind, file, epoch, size, reach, owner: inner.me } };
    loop {
        let routes = inner.routes();
        if let Some(server) = routes.table.coordinator() {
            match ask::<LogRes>(inner, server, PeerProc::IntentLog, &args).await {
                Ok(res) if res.status == 0 => return Some(res.id),
                Ok(res) => tracing::warn!(status = res.status, "the coordinator does not log an intention"),
                Err(error) => {
                    tracing::warn!(%error, "the coordinator could not be asked to log an intention")
                }
            }
        }
        inner.table_after(&routes, RETRY).await;
    }
}

/// Tells the coordinator that intentions are fulfilled. If that is lost, it takes them over and finds nothing to do.
pub(crate) async fn complete(inner: &Arc<Inner>, ids: Vec<IntentionId>) {
    let routes = inner.routes();
    let Some(server) = routes.table.coordinator() else { return };
    for ids in ids.chunks(MAX_COMPLETED as usize) {
        let args = CompleteArgs { ids: ids.to_vec() };
        if let Err(error) = ask::<u32>(inner, server, PeerProc::IntentComplete, &args).await {
            tracing::warn!(%error, "the coordinator could not be told of fulfilled intentions");
        }
    }
}
