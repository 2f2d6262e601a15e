//! After a restart: what peers' operations hold here, and what ours of earlier lives owe. And, all along, the lazy end of
//! every operation: its journal entry goes once peers have said that their parts are durable.
//!
//! ```text
//! this server starts                              a peer, H
//!   RECONCILE  life, what earlier lives owe H ──▶   [`reconcile`]: holds of earlier lives that owe nothing here are over;
//!                                                   what our earlier lives had not made durable for H is owed anew
//!   [`reconciled`]  ◀── what H's operations hold here, and owe
//!     what else they held is over; what was lost is held again
//!   what is owed to H ──▶
//! ```

use super::book::stored;
use super::distributed::{deliver_to, heard};
use super::peer::{end, unhold};
use super::talk::{RETRY, ask};
use crate::error::Result;
use crate::keys;
use crate::server::Inner;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use slice_proto::ids::{Role, ServerId, TableEpoch};
use slice_proto::peer::dir::{ConfirmArgs, DirRes, HoldKey, HoldPart, OpId, ReconcileArgs, ReconcileRes};
use slice_proto::peer::{PeerProc, PrivateStatus};
use slice_store::Batch;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Runs until it is dropped.
pub(crate) async fn run(inner: &Arc<Inner>) {
    let start = async {
        // Nobody is known before the first table.
        inner.table_at_least(TableEpoch(1)).await;
        let routes = inner.routes();
        // A complete table: every site has an owner.
        inner.journal.place(|site| routes.owner(site));
        let peers = routes.table.servers_of(Role::Dir).filter(|s| *s != inner.me);
        join_all(peers.map(|server| meet(inner, server))).await;
        inner.reconciled.open();
    };
    tokio::join!(start, settle(inner));
}

/// Reconciles with a peer, and has what is owed to it carried out.
async fn meet(inner: &Arc<Inner>, server: ServerId) {
    let boot = inner.journal.boot();
    loop {
        let routes = inner.routes();
        if !routes.table.servers.contains_key(&server) {
            return;
        }
        let args = ReconcileArgs { sender: inner.me, boot, owed: inner.journal.inherited(server) };
        match ask::<ReconcileRes>(inner, server, PeerProc::Reconcile, &args).await {
            Ok(res) if res.status == 0 => {
                heard(inner, server, res.life);
                match reconciled(inner, server, &res) {
                    Ok(()) => break,
                    Err(error) => tracing::error!(%error, "the store failed a reconciliation"),
                }
            }
            Ok(res) => {
                tracing::error!(%server, status = res.status, "a directory server refuses to reconcile")
            }
            Err(error) => tracing::warn!(%error, %server, "a directory server cannot be reconciled with yet"),
        }
        inner.table_after(&routes, RETRY).await;
    }
    for seq in inner.journal.inherited(server) {
        tokio::task::spawn_local(deliver_to(Arc::clone(inner), seq, server));
    }
}

/// RECONCILE: the sender has started. What its earlier lives hold here and do not owe is free.
pub(crate) fn reconcile(inner: &Arc<Inner>, args: &ReconcileArgs) -> ReconcileRes {
    let routes = inner.routes();
    let life = inner.journal.boot();
    if !inner.journal.place(|site| routes.owner(site)) {
        // Before the first table nobody can be told what is owed to him: he asks again.
        let status = PrivateStatus::WrongSite as u32;
        return ReconcileRes { status, holds: Vec::new(), owed: Vec::new(), life };
    }
    heard(inner, args.sender, args.boot);
    let owed: HashSet<u64> = args.owed.iter().copied().collect();
    for op in inner.peers.started(args.sender, args.boot, &owed) {
        end(inner, op);
    }
    ReconcileRes {
        status: 0,
        holds: inner.journal.holds_at(args.sender),
        owed: inner.journal.owed_to(args.sender),
        life,
    }
}

/// We have started, and `sender` has answered what its operations hold here: its others are over, these go on.
fn reconciled(inner: &Inner, sender: ServerId, res: &ReconcileRes) -> Result<()> {
    let state = &inner.state;
    let owed: HashSet<u64> = res.owed.iter().copied().collect();
    let named: HashSet<u64> = res.holds.iter().map(|h| h.seq).chain(owed.iter().copied()).collect();
    for op in inner.peers.recovered(sender) {
        if !named.contains(&op.seq) {
            end(inner, op);
            continue;
        }
        if owed.contains(&op.seq) {
            inner.peers.goes_on(op);
        } else {
            undecided(inner, op)?;
        }
    }
    for held in &res.holds {
        let (op, key) = (OpId { sender, seq: held.seq }, held.key);
        if !inner.peers.is_over(op)
            && !inner.peers.holds(op, &key)
            && state.store.get(&keys::mark(op))?.is_none()
        {
            // Of what is not shared only the hold of a new file can be lost.
            hold_again(inner, op, key, held.share, owed.contains(&op.seq) || !held.share)?;
        }
    }
    Ok(())
}

/// An operation that was found after a restart is not decided yet, as its sender has said, or shows by asking for a hold:
/// nobody has seen anything of it. Its own sender may be a reader, and must not wait for itself.
pub(crate) fn undecided(inner: &Inner, op: OpId) -> Result<()> {
    if inner.peers.goes_on(op) {
        for key in inner.peers.keys_of(op).0 {
            let there = key.part != HoldPart::Attr || inner.state.peek(key.file)?.is_some();
            if there {
                inner.state.unveil(&key, op);
            }
        }
    }
    Ok(())
}

/// Holds a record again that an operation held in our earlier life, and that is lost. Who has come first shares it: who does
/// not waits until we are reconciled.
fn hold_again(inner: &Inner, op: OpId, key: HoldKey, share: bool, veil: bool) -> Result<()> {
    let state = &inner.state;
    let mut batch = Batch::new();
    batch.put(keys::hold(op, &key), stored(share));
    let ticket = state.store.submit(batch)?;
    if let Some(mut site) = state.site(key.site) {
        site.locks.restore(key, op, share);
        if veil {
            state.veil(&mut site, &key, op);
        }
    }
    if !inner.peers.enter(op, key, ticket) {
        // It has ended just now.
        state.release(&key, op);
        unhold(inner, op, &[key]);
    }
    Ok(())
}

/// Asks peers whether what they have applied is durable, many operations at a time, and deletes what is settled. No peer
/// waits for another.
async fn settle(inner: &Arc<Inner>) {
    let mut asking = FuturesUnordered::new();
    let mut asked = BTreeSet::new();
    loop {
        for (server, seqs) in inner.journal.lazy(&asked) {
            asked.insert(server);
            asking.push(async move {
                settle_with(inner, server, seqs).await;
                server
            });
        }
        if let Err(error) = inner.journal.sweep(&inner.state.store) {
            tracing::error!(%error, "settled operations could not be deleted");
        }
        tokio::select! {
            biased;
            Some(server) = asking.next() => {
                asked.remove(&server);
            }
            () = inner.journal.bell.notified() => {}
        }
    }
}

async fn settle_with(inner: &Arc<Inner>, server: ServerId, seqs: Vec<u64>) {
    loop {
        let routes = inner.routes();
        let args = ConfirmArgs {
            table: routes.epoch(),
            op: OpId { sender: inner.me, seq: 0 },
            settled: inner.settled(),
            effects: Vec::new(),
        };
        match ask::<DirRes>(inner, server, PeerProc::Owe, &args).await {
            Ok(res) if res.status == 0 => {
                heard(inner, server, res.life);
                return inner.journal.durable(seqs, server, res.life);
            }
            _ => inner.table_after(&routes, RETRY).await,
        }
    }
}
