//! The ONC RPC face: INTENT_LOG, INTENT_COMPLETE, SETTLED.

use crate::coordinator::Coordinator;
use crate::error::Error;
use crate::intents::{Command, Event, Refusal};
use bytes::{BufMut, BytesMut};
use slice_proto::ids::{IntentionId, Xid};
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::dir::SettledRes;
use slice_proto::peer::intent::{CompleteArgs, Intent, LogArgs, LogRes};
use slice_proto::peer::{self, PeerProc};
use slice_proto::rpc_msg::{CallHeader, ReplyStatus, RpcError, encode_reply, encode_success};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::clock::Clock;
use slice_rpc::service::{Handled, Message, Peer, Service};
use std::sync::atomic::Ordering;

impl Service for Coordinator {
    fn call(&self, _peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let call = match CallHeader::decode(&record) {
            Ok(call) => call,
            Err(RpcError::NotACall(_)) => return Handled::Close,
            Err(RpcError::Version { xid, .. }) => return answer(reply, xid, ReplyStatus::RPC_MISMATCH),
        };
        let xid = call.xid;
        match (call.prog, call.vers) {
            (peer::PROGRAM, peer::VERSION) => {}
            (peer::PROGRAM, _) => {
                let mismatch = ReplyStatus::ProgMismatch { low: peer::VERSION, high: peer::VERSION };
                return answer(reply, xid, mismatch);
            }
            _ => return answer(reply, xid, ReplyStatus::ProgUnavail),
        }
        let mut args = Reader::at(&record, call.args_at);
        match PeerProc::from_u32(call.proc) {
            Some(PeerProc::Null) => answer(reply, xid, ReplyStatus::Success),
            Some(PeerProc::IntentLog) => match LogArgs::decode(&mut args) {
                Ok(args) => self.intent_log(xid, args.intent, reply),
                Err(_) => answer(reply, xid, ReplyStatus::GarbageArgs),
            },
            Some(PeerProc::IntentComplete) => match CompleteArgs::decode(&mut args) {
                Ok(args) => self.intent_complete(xid, args, reply),
                Err(_) => answer(reply, xid, ReplyStatus::GarbageArgs),
            },
            Some(PeerProc::Settled) => {
                encode_success(&mut reply.head, xid);
                let unsettled = self.open_intents().0 as u64;
                SettledRes { status: NfsStat3::OK.0, unsettled }.encode(&mut reply.head);
                Handled::Done
            }
            _ => answer(reply, xid, ReplyStatus::ProcUnavail),
        }
    }
}

impl Coordinator {
    /// INTENT_LOG: answered once the intention is durable.
    fn intent_log(&self, xid: Xid, intent: Intent, reply: &mut Message) -> Handled {
        self.calls.log.fetch_add(1, Ordering::Relaxed);
        let now_ns = self.steady.now_ns();
        let outcome = match self.intent(|next| Event::Log { intent, now_ns, next }) {
            Ok(outcome) => outcome,
            Err(error) => return refuse(reply, xid, status_of(&error)),
        };
        match outcome.rest.first() {
            Some(Command::Answer { id, record }) => {
                let (id, durable) = (*id, self.logged(*record));
                Handled::Later(Box::pin(async move {
                    let status = durable.await.map_or_else(|e| status_of(&e), |()| NfsStat3::OK);
                    log_res(xid, status, id).into()
                }))
            }
            Some(Command::Refuse(Refusal::Full)) => refuse(reply, xid, NfsStat3::JUKEBOX),
            _ => refuse(reply, xid, NfsStat3::NOTSUPP),
        }
    }

    /// INTENT_COMPLETE: lazy, so answered at once. What a crash loses of it is taken over again, without effect.
    fn intent_complete(&self, xid: Xid, args: CompleteArgs, reply: &mut Message) -> Handled {
        self.calls.complete.fetch_add(1, Ordering::Relaxed);
        let status = self.complete(args.ids).map_or_else(|e| status_of(&e), |()| NfsStat3::OK);
        encode_success(&mut reply.head, xid);
        reply.head.put_u32(status.0);
        Handled::Done
    }
}

fn status_of(error: &Error) -> NfsStat3 {
    tracing::warn!(%error, "an intention is refused");
    NfsStat3::IO
}

fn log_res(xid: Xid, status: NfsStat3, id: IntentionId) -> BytesMut {
    let mut w = BytesMut::new();
    encode_success(&mut w, xid);
    LogRes { status: status.0, id }.encode(&mut w);
    w
}

fn refuse(reply: &mut Message, xid: Xid, status: NfsStat3) -> Handled {
    reply.head.extend_from_slice(&log_res(xid, status, IntentionId(0)));
    Handled::Done
}

fn answer(reply: &mut Message, xid: Xid, status: ReplyStatus) -> Handled {
    encode_reply(&mut reply.head, xid, status);
    Handled::Done
}
