//! What is measured of a client's call on its way through a thread's µproxy.

use crate::classify::Call;
use crate::front::Front;
use slice_metrics::{Timing, Trace};
use slice_proto::nfs3::Proc3;
use slice_proto::procedures::{UNKNOWN, status_of};
use slice_rpc::{Handled, Message, Peer};
use std::sync::Arc;

/// What is measured of a client's call.
#[derive(Clone, Copy)]
pub(crate) struct At {
    /// The procedure's number among those that are counted.
    pub number: usize,
    /// When it came.
    pub timing: Timing,
    /// Its phases, if it is one of those that are measured.
    pub trace: Trace,
}

impl At {
    /// Of a call that no client made.
    pub(crate) fn unmeasured() -> Self {
        Self { number: UNKNOWN, timing: Timing::now(), trace: Trace::NONE }
    }
}

/// Says in the log that a call came; the servers that it goes to name it by the same client and xid.
pub(crate) fn tell(call: &Call, peer: &Peer, proc: Proc3) {
    tracing::debug!(
        target: "slice::request",
        role = "proxy",
        client = %peer.addr.ip(),
        xid = %format_args!("{:08x}", call.xid.0),
        procedure = proc.name(),
        "received"
    );
}

impl Front {
    /// Counts a call that was handled: at once, or when its answer is there. A detached one is counted by who answers it.
    pub(crate) fn counted(
        &self,
        number: usize,
        timing: Timing,
        handled: Handled,
        reply: &Message,
    ) -> Handled {
        match handled {
            Handled::Done => {
                self.calls.at_once(number, timing, status_of(number, &reply.head));
                Handled::Done
            }
            Handled::Later(later) => {
                let calls = Arc::clone(&self.calls);
                Handled::Later(Box::pin(async move {
                    let reply = later.await;
                    calls.later(number, timing, status_of(number, &reply.head));
                    reply
                }))
            }
            other => other,
        }
    }

    /// Shows what this thread holds, in gauges of its own.
    pub(crate) fn note_held(&self) {
        let soft = self.soft.borrow();
        self.held.files.set(soft.len() as u64);
        self.held.dirty.set(soft.due() as u64);
        self.held.forwarded.set(self.forwarded.borrow().len() as u64);
        self.held.answers.set(self.copies.kept() as u64);
    }
}
