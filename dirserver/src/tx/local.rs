//! An operation all of whose records are here: tried until nothing is missing, without a wait.

use super::attempt::{Attempt, Fresh, Ground};
use super::unfinished::Due;
use crate::call::Call;
use crate::decide::{Caller, Missing, Op};
use crate::error::Error;
use crate::replies::Running;
use crate::resize::Wanted;
use crate::routes::Routes;
use crate::server::Inner;
use bytes::BytesMut;
use slice_proto::ids::Site;
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::dir::{HoldKey, OpId};
use slice_proto::table::Volume;
use slice_store::Batch;

/// How it ended.
pub(crate) enum Ran {
    /// The reply is written.
    Committed(Due),
    /// A record is held: try again when it is the call's turn.
    Busy(HoldKey),
    /// A record is a peer's, or the operation goes on after its commit.
    Distributed,
    /// A size is to be set; the reply will show these operations, too.
    Resize(Wanted, Vec<u64>),
    /// The store failed.
    Failed(Error),
}

/// The sites of ours that an operation surely touches, in rising order.
pub(crate) fn first_sites(op: &Op<'_>, volume: &Volume, routes: &Routes) -> Vec<Site> {
    let mut sites = Vec::with_capacity(8);
    sites.push(op.site(volume));
    match op {
        Op::Rename { from, to } => {
            sites.extend([from.dir.file.home(), to.dir.file.home(), from.key(volume).site]);
        }
        Op::Link { file, to } => sites.extend([file.file.home(), to.dir.file.home()]),
        _ => sites.push(op.handle().file.home()),
    }
    sites.retain(|s| routes.mine(*s));
    sites.sort_unstable();
    sites.dedup();
    sites
}

/// Runs an operation, and writes its reply to `out`.
#[allow(clippy::too_many_arguments)] // all of it is one call's, and nothing else has all of it
pub(crate) fn run(
    inner: &Inner,
    routes: &Routes,
    call: &Call,
    op: &Op<'_>,
    volume: &Volume,
    number: Option<OpId>,
    running: Option<(&Running, Site)>,
    fresh: &mut Fresh,
    out: &mut BytesMut,
) -> Ran {
    let mut sites = first_sites(op, volume, routes);
    let mut inline = false;
    loop {
        let who = Caller { cred: call.head.cred, now_ns: inner.now_ns(), volume };
        let ground = Ground { inner, routes, op: number, held: None };
        let mut attempt = Attempt::new(ground, &sites, fresh, inline);
        let missing = match attempt.decide(op, &who) {
            Ok(outcome) => {
                if let Some((file, size)) = outcome.resize {
                    // A new file with a size has something to wait for after its commit.
                    let made = attempt.is_new(file);
                    let wanted = Wanted { file, size, reply: outcome.reply };
                    return if made { Ran::Distributed } else { Ran::Resize(wanted, attempt.unfinished()) };
                }
                attempt.reply(&outcome, out, call.head.xid, volume.id);
                let (done, refused) = match outcome.status {
                    NfsStat3::OK => (running, None),
                    _ => (None, running),
                };
                return match attempt.commit(done, out, Batch::new()) {
                    Ok(committed) => {
                        if let Some((running, _)) = refused {
                            running.refused(out, committed.due.ticket);
                        }
                        Ran::Committed(committed.due)
                    }
                    Err(error) => {
                        out.clear();
                        Ran::Failed(error)
                    }
                };
            }
            Err(missing) => missing,
        };
        drop(attempt);
        match missing {
            Missing::Attr(file) => {
                inline = true;
                if let Err(error) = inner.state.attr(file) {
                    return Ran::Failed(error);
                }
            }
            Missing::Names(site, key) => {
                inline = true;
                if let Err(error) = inner.state.names(site, key) {
                    return Ran::Failed(error);
                }
            }
            Missing::Site(site) => add(&mut sites, site),
            Missing::Busy(key) => return Ran::Busy(key),
            Missing::Hold(..) | Missing::Peek(_) | Missing::New(_) | Missing::Peer => {
                return Ran::Distributed;
            }
            Missing::Fail(error) => return Ran::Failed(error),
        }
    }
}

/// Adds a site in its place.
pub(crate) fn add(sites: &mut Vec<Site>, site: Site) {
    if let Err(at) = sites.binary_search(&site) {
        sites.insert(at, site);
    }
}
