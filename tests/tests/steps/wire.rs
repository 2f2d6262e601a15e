//! What goes between servers: written down, and stopped at one message.

use bytes::BytesMut;
use parking_lot::Mutex;
use slice_proto::ids::{Role, ServerId};
use slice_proto::nfs3::Proc3;
use slice_proto::peer::{self, PeerProc};
use slice_proto::rpc_msg::CallHeader;
use slice_rpc::{Handled, Message, Peer, Service};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

/// A kind of message: who says what to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    pub from: ServerId,
    pub to: ServerId,
    prog: u32,
    proc: u32,
}

/// A message of an operation: the nth of its kind since the operation began, from 1. Messages of different kinds may come
/// in another order the next time, those of one kind are told apart by nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Step {
    pub kind: Kind,
    pub nth: u32,
}

/// When a message is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Arrived, but not executed.
    Before,
    /// Executed, but not answered.
    After,
}

/// Where a message is stopped.
pub type Trap = (Step, When);

/// A message that was stopped.
pub struct Stopped {
    pub peer: Peer,
    pub record: BytesMut,
    /// Lets it go on; dropped, it never does.
    pub free: oneshot::Sender<()>,
}

#[derive(Default)]
struct State {
    counts: HashMap<Kind, u32>,
    seen: Vec<Step>,
    trap: Option<Trap>,
    stopped: Option<Stopped>,
}

/// All that goes between the servers of an ensemble.
#[derive(Clone, Default)]
pub struct Wire(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    came: Notify,
}

/// A service with the wire before it.
pub struct Guarded {
    pub id: ServerId,
    pub wire: Wire,
    pub service: Arc<dyn Service>,
}

// === impl Kind ===

impl Kind {
    pub fn new(from: ServerId, to: ServerId, proc: PeerProc) -> Self {
        Self { from, to, prog: peer::PROGRAM, proc: proc as u32 }
    }

    /// What is asked.
    pub fn what(&self) -> String {
        match self.prog {
            peer::PROGRAM => format!("{:?}", PeerProc::from_u32(self.proc).unwrap()),
            _ => Proc3::from_u32(self.proc).unwrap().name().to_owned(),
        }
    }

    /// Whether it may be left out: what only asks how things are depends on what is known, and an OWE may ask whether all
    /// is durable, which the answer before may have told.
    pub fn may_fail_to_come(&self) -> bool {
        matches!(self.what().as_str(), "GETATTR" | "ACCESS" | "LOOKUP" | "READ" | "Stat" | "Owe")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kind { from, to, .. } = self.kind;
        write!(
            f,
            "{}→{} {} {}",
            super::ensemble::name(from),
            super::ensemble::name(to),
            self.kind.what(),
            self.nth
        )
    }
}

// === impl Wire ===

impl Wire {
    /// From now on messages are counted anew, and the first that falls into the trap is stopped.
    pub fn begin(&self, trap: Option<Trap>) {
        *self.0.state.lock() = State { trap, ..State::default() };
    }

    /// All messages since then.
    pub fn seen(&self) -> Vec<Step> {
        self.0.state.lock().seen.clone()
    }

    /// The message that is in the trap, as soon as one is.
    pub async fn stopped(&self) -> Stopped {
        loop {
            let came = self.0.came.notified();
            if let Some(stopped) = self.take() {
                return stopped;
            }
            came.await;
        }
    }

    fn take(&self) -> Option<Stopped> {
        // One that is executed first is in the trap only then.
        let mut state = self.0.state.lock();
        if state.trap.is_none() { state.stopped.take() } else { None }
    }

    /// Notes a call. `Some` if it is to be stopped.
    fn note(&self, to: ServerId, peer: &Peer, record: &BytesMut) -> Option<(When, oneshot::Receiver<()>)> {
        let (role, from) = peer.proved?;
        let h = CallHeader::decode(record).unwrap();
        // The checker's own, and the life signs of channels, belong to no operation.
        if role == Role::Admin || (h.prog == peer::PROGRAM && h.proc == PeerProc::Null as u32) {
            return None;
        }
        let kind = Kind { from, to, prog: h.prog, proc: h.proc };
        let mut state = self.0.state.lock();
        let nth = state.counts.entry(kind).or_default();
        *nth += 1;
        let step = Step { kind, nth: *nth };
        state.seen.push(step);
        let (_, when) = state.trap.filter(|(stopped, _)| *stopped == step)?;
        let (free, freed) = oneshot::channel();
        state.stopped = Some(Stopped { peer: peer.clone(), record: record.clone(), free });
        Some((when, freed))
    }

    /// The message is where it was to be stopped.
    fn ready(&self) {
        self.0.state.lock().trap = None;
        self.0.came.notify_one();
    }
}

// === impl Guarded ===

/// Has a service answer.
pub async fn answer(service: &dyn Service, peer: &Peer, record: BytesMut) -> Message {
    let mut reply = Message::default();
    match service.call(peer, record, &mut reply) {
        Handled::Later(later) => later.await,
        _ => reply,
    }
}

impl Service for Guarded {
    fn call(&self, peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let Some((when, freed)) = self.wire.note(self.id, peer, &record) else {
            return self.service.call(peer, record, reply);
        };
        let (wire, service, peer) = (self.wire.clone(), Arc::clone(&self.service), peer.clone());
        Handled::Later(Box::pin(async move {
            if when == When::Before {
                wire.ready();
                if freed.await.is_err() {
                    return std::future::pending().await;
                }
                return answer(&*service, &peer, record).await;
            }
            let reply = answer(&*service, &peer, record).await;
            wire.ready();
            // Whether anybody still waits for the reply or not.
            let _ = freed.await;
            reply
        }))
    }
}
