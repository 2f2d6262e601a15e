//! A service whose calls are counted: by procedure, with errors and latencies, on each thread for itself, whether they come
//! over a socket or from this process.

use crate::service::{Handled, Message, Peer, Service};
use bytes::BytesMut;
use parking_lot::Mutex;
use slice_metrics::{BOUNDS_NS, Calls, CallsOf, Samples, Snapshot, Timing};
use slice_proto::ids::{Role, ServerId};
use slice_proto::procedures::{self, of_call, status_of};
use slice_proto::trailer::CallTrailer;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's counts, by the number of their service. Few: one per server of the process.
    static OWN: RefCell<Vec<Option<Arc<Calls>>>> = const { RefCell::new(Vec::new()) };
}

/// A service that counts; see the head of this file.
pub struct Metered {
    inner: Arc<dyn Service>,
    role: Role,
    number: usize,
    calls: Arc<CallsOf>,
}

impl Metered {
    /// Counts what `inner`, a server of `role`, is called for.
    #[must_use]
    pub fn new(role: Role, inner: Arc<dyn Service>) -> Arc<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { inner, role, number, calls: Arc::new(CallsOf::new(procedures::COUNT)) })
    }

    /// What was counted.
    #[must_use]
    pub fn calls(&self) -> &Arc<CallsOf> {
        &self.calls
    }

    fn own(&self) -> Arc<Calls> {
        OWN.with(|own| {
            let mut own = own.borrow_mut();
            if own.len() <= self.number {
                own.resize(self.number + 1, None);
            }
            match own.get_mut(self.number) {
                Some(slot) => Arc::clone(slot.get_or_insert_with(|| self.calls.thread())),
                // It was just made long enough.
                None => self.calls.thread(),
            }
        })
    }

    /// Whose call this is, where somebody wants to read it: the µproxy says so in the trailer behind it.
    fn told(&self, call: &[u8], behind: &[u8]) -> Option<CallTrailer> {
        if !tracing::enabled!(target: "slice::request", tracing::Level::DEBUG) {
            return None;
        }
        let record = if behind.is_empty() { call } else { behind };
        CallTrailer::split(record).ok().map(|(_, trailer)| trailer)
    }

    fn count(
        &self,
        procedure: usize,
        trailer: Option<CallTrailer>,
        reply: &mut Message,
        handle: impl FnOnce(&mut Message) -> Handled,
    ) -> Handled {
        let calls = self.own();
        let timing = calls.begin(procedure);
        let role = self.role;
        match handle(reply) {
            Handled::Done => {
                let status = status_of(procedure, &reply.head);
                calls.at_once(procedure, timing, status);
                tell(role, procedure, trailer, status, timing);
                Handled::Done
            }
            Handled::Later(later) => Handled::Later(Box::pin(async move {
                let reply = later.await;
                let status = status_of(procedure, &reply.head);
                calls.later(procedure, timing, status);
                tell(role, procedure, trailer, status, timing);
                reply
            })),
            other => other,
        }
    }
}

/// Says in the log what became of a call that a µproxy forwarded.
fn tell(role: Role, procedure: usize, trailer: Option<CallTrailer>, status: u32, timing: Timing) {
    let Some(trailer) = trailer else { return };
    tracing::debug!(
        target: "slice::request",
        role = role.name(),
        client = %trailer.client,
        xid = %format_args!("{:08x}", trailer.xid.0),
        procedure = procedures::name(procedure),
        status = procedures::status_name(status),
        waited_us = timing.waited_ns() / 1000,
        "served"
    );
}

impl Service for Metered {
    fn call(&self, peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let trailer = self.told(&record, &[]);
        self.count(of_call(&record), trailer, reply, |reply| self.inner.call(peer, record, reply))
    }

    fn call_message(&self, peer: &Peer, call: Message, reply: &mut Message) -> Handled {
        let trailer = self.told(&call.head, &call.tail);
        self.count(of_call(&call.head), trailer, reply, |reply| self.inner.call_message(peer, call, reply))
    }
}

/// All procedures together.
#[derive(Debug, Clone)]
pub struct Total {
    /// Calls that were answered, by how long that took.
    pub latency: Snapshot,
    /// Answers that were errors.
    pub errors: u64,
    /// Of these, those that no request should meet: the server's own fault.
    pub faults: u64,
}

/// What was counted, all procedures together.
#[must_use]
pub fn total(calls: &CallsOf) -> Total {
    let mut total = Total { latency: Snapshot::empty(&BOUNDS_NS), errors: 0, faults: 0 };
    for sum in calls.sums() {
        total.latency.merge(&sum.latency);
        for (status, n) in sum.errors {
            total.errors += n;
            total.faults += if procedures::is_fault(status) { n } else { 0 };
        }
    }
    total
}

impl Metered {
    /// What the metrics endpoint shows of a server's calls.
    pub fn samples(&self, out: &mut Samples) {
        for sum in self.calls.sums() {
            let procedure = procedures::name(sum.procedure);
            let own = [("procedure", procedure)];
            out.counter("slice_server_requests_total", "Requests that came in.", &own, sum.begun as f64);
            out.seconds(
                "slice_server_request_duration_seconds",
                "Time from a request to its reply.",
                &own,
                sum.latency,
            );
            for (status, n) in sum.errors {
                let labels = [("procedure", procedure), ("status", procedures::status_name(status))];
                let help = "Replies with a status other than OK.";
                out.counter("slice_server_errors_total", help, &labels, n as f64);
            }
        }
    }
}

/// What one caller, a µproxy, asked of each server.
#[derive(Debug, Default)]
pub struct Targets(Mutex<BTreeMap<ServerId, Arc<CallsOf>>>);

impl Targets {
    /// One more thread's counts of calls to `server`.
    pub(crate) fn thread(&self, server: ServerId) -> Arc<Calls> {
        self.0.lock().entry(server).or_insert_with(|| Arc::new(CallsOf::new(procedures::COUNT))).thread()
    }

    /// Every server that was called, and what for.
    #[must_use]
    pub fn all(&self) -> Vec<(ServerId, Arc<CallsOf>)> {
        self.0.lock().iter().map(|(id, calls)| (*id, Arc::clone(calls))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::ids::Xid;
    use slice_proto::nfs3::{NfsStat3, Proc3};
    use slice_proto::rpc_msg::{OpaqueAuth, encode_call, encode_success, program, version};

    struct Answers;

    impl Service for Answers {
        fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
            if of_call(&record) == Proc3::Write as usize {
                let mut later = BytesMut::new();
                encode_success(&mut later, Xid(1));
                later.extend_from_slice(&NfsStat3::NOSPC.0.to_be_bytes());
                return Handled::Later(Box::pin(std::future::ready(later.into())));
            }
            encode_success(&mut reply.head, Xid(1));
            reply.head.extend_from_slice(&[0; 4]);
            Handled::Done
        }
    }

    fn call(service: &dyn Service, proc: Proc3) -> Handled {
        let mut record = BytesMut::new();
        encode_call(&mut record, Xid(1), program::NFS, version::NFS3, proc as u32, &OpaqueAuth::NONE);
        let peer = Peer { addr: ([127, 0, 0, 1], 1).into(), proved: None };
        service.call(&peer, record, &mut Message::default())
    }

    #[test]
    fn each_call_is_counted_once_on_whichever_thread() {
        let metered = Metered::new(Role::Dir, Arc::new(Answers));
        for _ in 0..40 {
            call(&*metered, Proc3::Getattr);
        }
        let other = Arc::clone(&metered);
        std::thread::spawn(move || drop(call(&*other, Proc3::Getattr))).join().unwrap();
        let Handled::Later(later) = call(&*metered, Proc3::Write) else { panic!("answered at once") };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(later);
        let sums = metered.calls().sums();
        assert_eq!((sums[0].begun, sums[0].latency.count(), sums[0].errors.len()), (41, 41, 0));
        assert_eq!((sums[1].begun, sums[1].latency.count()), (1, 1));
        assert_eq!(sums[1].errors, [(NfsStat3::NOSPC.0, 1)].into());
    }
}
