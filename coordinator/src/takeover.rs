//! Take-over: rolls aged intentions forward at the data servers. Fencing makes that harmless when the owner is only
//! slow: PURGE and TRUNCATE act once per epoch (I9).

use crate::coordinator::Coordinator;
use crate::intents::{Command, Event};
use bytes::BytesMut;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use slice_proto::ids::{IntentionId, Role, ServerId, Site, Xid};
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::data::{DataRes, PurgeArgs, Sites, TruncateArgs};
use slice_proto::peer::intent::{Intent, IntentKind};
use slice_proto::peer::{PROGRAM, PeerProc, PrivateStatus, VERSION};
use slice_proto::placement::{block_sites_under, small_site};
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call};
use slice_proto::table::RoutingTable;
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::clock::Clock;
use slice_rpc::service::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long one take-over may wait for its data servers before it makes room for another; it is tried again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which servers a roll-forward must visit, with the sites at each. `None` if the table lacks a site.
fn visits(intent: &Intent, table: &RoutingTable) -> Option<BTreeMap<ServerId, Vec<Site>>> {
    let small = (Role::Small, small_site(intent.file));
    let blocks = block_sites_under(intent.file, intent.reach).map(|site| (Role::Block, site));
    let mut visits: BTreeMap<ServerId, Vec<Site>> = BTreeMap::new();
    for (role, site) in std::iter::once(small).chain(blocks) {
        visits.entry(table.owner(role, site)?).or_default().push(site);
    }
    Some(visits)
}

/// The call that rolls an intention forward at one server. `None` for kinds that are not rolled forward.
fn call(intent: &Intent, sites: Vec<Site>, table: &RoutingTable) -> Option<BytesMut> {
    let (table, sites) = (table.epoch, Sites(sites));
    let Intent { kind, file, epoch, size, .. } = *intent;
    let mut w = BytesMut::new();
    let mut head = |proc: PeerProc| {
        encode_call(&mut w, Xid(0), PROGRAM, VERSION, proc as u32, &OpaqueAuth::NONE);
    };
    match kind {
        IntentKind::Remove => {
            head(PeerProc::Purge);
            PurgeArgs { table, sites, file, epoch }.encode(&mut w);
        }
        IntentKind::Truncate => {
            head(PeerProc::Truncate);
            TruncateArgs { table, sites, file, epoch, size }.encode(&mut w);
        }
        IntentKind::MirroredWrite | IntentKind::MoveSite => return None,
    }
    Some(w)
}

/// Whether a data server's answer says that the effect is durable there. `Fenced`: something newer has happened to the
/// object, so there is nothing left of what was to be cut.
fn is_done(reply: &[u8]) -> bool {
    let Ok(header) = ReplyHeader::decode(reply) else { return false };
    let res = DataRes::decode(&mut Reader::at(reply, header.body_at));
    header.status == ReplyStatus::Success
        && res.is_ok_and(|r| r.status == NfsStat3::OK.0 || r.status == PrivateStatus::Fenced as u32)
}

impl Coordinator {
    /// Background work, until [`shutdown`](Self::shutdown): takes over intentions that have aged. Runs in a `LocalSet`.
    pub async fn run(self: Arc<Self>) {
        let mut running = FuturesUnordered::new();
        let stopped = self.stopped();
        tokio::pin!(stopped);
        loop {
            let now_ns = self.steady.now_ns();
            match self.intent(|_| Event::Tick { now_ns }) {
                Ok(outcome) => {
                    for command in outcome.rest {
                        if let Command::TakeOver(id, intent) = command {
                            running.push(self.take_over(id, intent));
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "intentions are not taken over any more"),
            }
            tokio::select! {
                () = &mut stopped => return,
                () = self.first_intent.notified() => {}
                Some((id, done)) = running.next() => self.taken_over(id, done),
                () = self.until(self.next_due_ns()) => {}
            }
        }
    }

    /// Waits until a time of the clock; for ever if there is none.
    async fn until(&self, due_ns: Option<u64>) {
        match due_ns {
            Some(due) => {
                let left = Duration::from_nanos(due.saturating_sub(self.steady.now_ns()));
                // Never quite in vain: the clock and the timer may differ by a little.
                tokio::time::sleep(left.max(Duration::from_millis(1))).await;
            }
            None => std::future::pending().await,
        }
    }

    fn taken_over(&self, id: IntentionId, done: bool) {
        let outcome = if done {
            self.calls.taken_over.fetch_add(1, Ordering::Relaxed);
            self.took_over(id)
        } else {
            let now_ns = self.steady.now_ns();
            self.intent(|_| Event::Failed { id, now_ns }).map(|_| ())
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "a take-over is not noted");
        }
    }

    /// Rolls one intention forward; whether every site has it.
    async fn take_over(&self, id: IntentionId, intent: Intent) -> (IntentionId, bool) {
        tracing::info!(id = id.0, ?intent, "an intention was not completed in time: taking it over");
        let done = tokio::time::timeout(PATIENCE, self.roll_forward(&intent)).await.unwrap_or(false);
        if !done {
            tracing::info!(id = id.0, file = %intent.file, "not every data server could be reached: again later");
        }
        (id, done)
    }

    async fn roll_forward(&self, intent: &Intent) -> bool {
        let ensemble = self.ensemble();
        let Some(table) = ensemble.published() else { return false };
        let Some(visits) = visits(intent, table) else { return false };
        let calls = visits.into_iter().map(|(server, sites)| self.roll_at(server, intent, sites, table));
        join_all(calls).await.into_iter().all(|done| done)
    }

    async fn roll_at(
        &self,
        server: ServerId,
        intent: &Intent,
        sites: Vec<Site>,
        table: &RoutingTable,
    ) -> bool {
        let Some(call) = call(intent, sites, table) else { return false };
        let reply = match self.directory.channel(server) {
            Ok(channel) => channel.call(Message::from(call)).await,
            Err(error) => Err(error),
        };
        match reply {
            Ok(reply) => is_done(&reply),
            Err(error) => {
                tracing::info!(%server, %error, "a take-over did not reach a data server");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::ids::{Epoch, FileId, SITES_PER_ROLE, TableEpoch};
    use slice_proto::rpc_msg::encode_success;

    fn table() -> RoutingTable {
        let dealt =
            |n: u64, base: u64| (0..SITES_PER_ROLE as u64).map(|s| vec![ServerId(base + s % n)]).collect();
        RoutingTable {
            epoch: TableEpoch(3),
            small: dealt(2, 10),
            block: dealt(4, 20),
            ..RoutingTable::default()
        }
    }

    fn intent(reach: u64) -> Intent {
        Intent {
            kind: IntentKind::Remove,
            file: FileId(77),
            epoch: Epoch(2),
            size: 0,
            reach,
            owner: ServerId(1),
        }
    }

    #[test]
    fn every_site_under_the_reach_is_visited_once() {
        let t = table();
        let of = |reach| visits(&intent(reach), &t).unwrap();
        // Up to 64 KiB: only the small-file site.
        assert_eq!(of(64 << 10).len(), 1);
        let far = of(8 << 20);
        let sites: usize = far.values().map(Vec::len).sum();
        assert_eq!((far.len(), sites), (5, 9));
        for (server, sites) in far {
            let role = if server.0 < 20 { Role::Small } else { Role::Block };
            assert!(sites.iter().all(|s| t.owner(role, *s) == Some(server)));
        }
        assert_eq!(visits(&intent(8 << 20), &RoutingTable::default()), None);
    }

    #[test]
    fn done_and_fenced_are_done() {
        let reply = |status: u32| {
            let mut w = BytesMut::new();
            encode_success(&mut w, Xid(1));
            DataRes { status, epoch: Epoch(2), table: TableEpoch(3) }.encode(&mut w);
            w
        };
        assert!(is_done(&reply(0)));
        assert!(is_done(&reply(PrivateStatus::Fenced as u32)));
        assert!(!is_done(&reply(PrivateStatus::WrongSite as u32)));
        assert!(!is_done(&reply(NfsStat3::IO.0)));
        assert!(!is_done(b"garbage"));
    }
}
