//! After a restart: what peers' operations hold here, and what ours of earlier lives owe. And, all along, the lazy end of
//! every operation: its journal entry goes once peers have said that their parts are durable.

use super::distributed::deliver;
use super::peer;
use super::talk::{RETRY, ask};
use crate::server::Inner;
use futures_util::future::join_all;
use slice_proto::ids::{Role, ServerId, TableEpoch};
use slice_proto::peer::PeerProc;
use slice_proto::peer::dir::{ConfirmArgs, DirRes, OpId, ReconcileArgs, ReconcileRes};
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
        join_all(peers.map(|server| reconcile(inner, server))).await;
        inner.reconciled.send_replace(true);
        join_all(inner.journal.inherited().into_iter().map(|seq| deliver(inner, seq))).await;
    };
    tokio::join!(start, settle(inner));
}

async fn reconcile(inner: &Arc<Inner>, server: ServerId) {
    let boot = inner.journal.boot();
    loop {
        let routes = inner.routes();
        if !routes.table.servers.contains_key(&server) {
            return;
        }
        let args = ReconcileArgs { sender: inner.me, boot, owed: inner.journal.inherited() };
        match ask::<ReconcileRes>(inner, server, PeerProc::Reconcile, &args).await {
            Ok(res) if res.status == 0 => match peer::reconciled(inner, server, &res) {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, "the store failed a reconciliation"),
            },
            Ok(res) => {
                tracing::error!(%server, status = res.status, "a directory server refuses to reconcile")
            }
            Err(error) => tracing::warn!(%error, %server, "a directory server cannot be reconciled with yet"),
        }
        inner.table_after(&routes, RETRY).await;
    }
}

/// Asks peers whether what they have applied is durable, many operations at a time, and deletes what is settled.
async fn settle(inner: &Arc<Inner>) {
    loop {
        inner.journal.bell.notified().await;
        loop {
            let lazy = inner.journal.lazy();
            if lazy.is_empty() {
                break;
            }
            join_all(lazy.into_iter().map(|(server, seqs)| settle_with(inner, server, seqs))).await;
        }
        if let Err(error) = inner.journal.sweep(&inner.state.store) {
            tracing::error!(%error, "settled operations could not be deleted");
        }
    }
}

async fn settle_with(inner: &Arc<Inner>, server: ServerId, seqs: Vec<u64>) {
    let routes = inner.routes();
    let args = ConfirmArgs {
        table: routes.epoch(),
        op: OpId { sender: inner.me, seq: 0 },
        settled: inner.settled(),
        effects: Vec::new(),
    };
    match ask::<DirRes>(inner, server, PeerProc::Owe, &args).await {
        Ok(res) if res.status == 0 => {
            seqs.into_iter().for_each(|seq| inner.journal.applied(seq, server, res.durable));
        }
        _ => inner.table_after(&routes, RETRY).await,
    }
}
