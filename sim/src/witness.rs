//! Who watches a coordinator: the id of an intention that it has acknowledged is no other's, in no later life.
//!
//! That an intention is lost can seldom be seen by its effect: the home site drives it, too. But ids are the log's sequence, so
//! that a log which has lost what it said was durable gives ids a second time, and then a completion completes another's.

use crate::world::world;
use bytes::BytesMut;
use slice_coordinator::Coordinator;
use slice_proto::ids::IntentionId;
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::intent::{Intent, LogArgs, LogRes};
use slice_proto::peer::{PROGRAM, PeerProc};
use slice_proto::rpc_msg::{CallHeader, ReplyHeader};
use slice_proto::xdr::{Decode, Reader};
use slice_rpc::{Handled, Message, Peer, Service};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Every acknowledged intention of all lives.
pub type Acknowledged = Arc<Mutex<BTreeMap<IntentionId, Intent>>>;

/// A coordinator under watch.
pub struct Witness {
    /// The coordinator.
    pub coordinator: Arc<Coordinator>,
    /// What it has acknowledged.
    pub acknowledged: Acknowledged,
}

fn logged(record: &[u8]) -> Option<Intent> {
    let header = CallHeader::decode(record).ok()?;
    let is_log = (header.prog, header.proc) == (PROGRAM, PeerProc::IntentLog as u32);
    is_log.then(|| LogArgs::decode(&mut Reader::at(record, header.args_at)).expect("arguments").intent)
}

fn acknowledge(reply: &[u8], intent: Intent, acknowledged: &Acknowledged) {
    let at = ReplyHeader::decode(reply).expect("a reply").body_at;
    let res = LogRes::decode(&mut Reader::at(reply, at)).expect("a result");
    if res.status == NfsStat3::OK.0 {
        world().note(|| format!("acknowledged as {:?}: {intent:?}", res.id));
        let mut acknowledged = acknowledged.lock().expect("nobody panics with it");
        let before = acknowledged.insert(res.id, intent.clone());
        drop(acknowledged);
        assert!(
            before.as_ref().is_none_or(|before| *before == intent),
            "{:?} was {before:?}, and is {intent:?}",
            res.id
        );
    }
}

impl Service for Witness {
    fn call(&self, peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let intent = logged(&record);
        match (self.coordinator.call(peer, record, reply), intent) {
            (Handled::Later(later), Some(intent)) => {
                let acknowledged = Arc::clone(&self.acknowledged);
                Handled::Later(Box::pin(async move {
                    let record = later.await.into_record();
                    acknowledge(&record, intent, &acknowledged);
                    record.into()
                }))
            }
            (handled, _) => handled,
        }
    }
}
