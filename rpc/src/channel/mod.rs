//! The client side: calls to one server, over a pipelined connection or straight into its handler.

mod call;
mod core;
mod in_process;
mod link;
mod slots;

pub use call::{Call, SplitCall};

use self::core::Core;
use self::slots::Waiter;
use crate::directory::Target;
use crate::error::CallError;
use crate::hello::Me;
use crate::metered::Targets;
use crate::service::Message;
use bytes::BytesMut;
use slice_metrics::{Calls, Phases};
use slice_proto::ids::ServerId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Most calls of one channel that are unanswered: an xid carries 16 bits of index. The bounds of the connections that
/// requests come from are far below; who calls on his own account gets [`CallError::Busy`].
pub const MAX_IN_FLIGHT: usize = 1 << 16;

/// Takes the replies to forwarded calls: the µproxy's fast path, without a future per request.
pub trait ReplySink: 'static {
    /// The reply to the call that was forwarded with `token`, or why there is none. For a server in this process this
    /// may run **inside** [`Channel::forward`]: hold no `RefCell` borrow across that, and do not forward from here
    /// without a bound, or the stack grows. The reply's xid is the channel's, not the client's.
    fn on_reply(&self, token: u64, reply: Result<BytesMut, CallError>);

    /// As [`ReplySink::on_reply`], but a reply that a server in this process made in parts comes in parts, so that
    /// bulk data need not be copied. By default they are copied together.
    fn on_message(&self, token: u64, reply: Result<Message, CallError>) {
        self.on_reply(token, reply.map(Message::into_record));
    }

    /// Where the time that the thread's channels take to receive and to send is counted, if anywhere.
    fn phases(&self) -> Option<Rc<Phases>> {
        None
    }
}

/// Where a thread's [`ReplySink`] is found by its channels, and where their calls are counted.
#[derive(Default)]
pub(crate) struct SinkCell {
    sink: RefCell<Option<Rc<dyn ReplySink>>>,
    phases: RefCell<Option<Rc<Phases>>>,
    targets: RefCell<Option<Arc<Targets>>>,
    /// This thread's counts, kept when a channel is made anew.
    calls: RefCell<HashMap<ServerId, Arc<Calls>>>,
}

impl SinkCell {
    pub(crate) fn set(&self, sink: Rc<dyn ReplySink>) {
        *self.phases.borrow_mut() = sink.phases();
        *self.sink.borrow_mut() = Some(sink);
    }

    /// Has the calls of channels that are made from now on counted.
    pub(crate) fn count(&self, targets: Arc<Targets>) {
        *self.targets.borrow_mut() = Some(targets);
    }

    fn calls(&self, server: ServerId) -> Option<Arc<Calls>> {
        let targets = self.targets.borrow();
        let targets = targets.as_ref()?;
        Some(Arc::clone(self.calls.borrow_mut().entry(server).or_insert_with(|| targets.thread(server))))
    }

    fn phases(&self) -> Option<Rc<Phases>> {
        self.phases.borrow().clone()
    }

    fn give(&self, token: u64, reply: Result<Message, CallError>) {
        // The borrow ends before the sink runs: it may forward further calls.
        let sink = self.sink.borrow().clone();
        match sink {
            Some(sink) => sink.on_message(token, reply),
            None => tracing::error!("a reply to a forwarded call, but nobody was set to take it"),
        }
    }
}

/// One thread's way to one server. Cheap to clone; stays on its thread. Connects when first used, connects again when
/// the connection breaks, and then sends again what is unanswered: servers answer each request once, by client and
/// original xid, so that is safe.
#[derive(Clone)]
pub struct Channel(Rc<Handle>);

/// What all clones of a channel share; its end is the channel's.
struct Handle {
    core: Rc<Core>,
}

impl Channel {
    pub(crate) fn new(server: ServerId, target: Target, me: Option<Arc<Me>>, sink: Rc<SinkCell>) -> Self {
        Self(Rc::new(Handle { core: Rc::new(Core::new(server, target, me, sink)) }))
    }

    /// A channel outside any directory: to an address of which only that is known (a coordinator at first contact, a
    /// server under test). `server` 0 accepts whoever answers the hello. Forwarded calls need `sink`.
    #[must_use]
    pub fn open(
        server: ServerId,
        target: Target,
        me: Option<Arc<Me>>,
        sink: Option<Rc<dyn ReplySink>>,
    ) -> Self {
        let cell = Rc::<SinkCell>::default();
        if let Some(sink) = sink {
            cell.set(sink);
        }
        Self::new(server, target, me, cell)
    }

    /// The server that this channel leads to.
    #[must_use]
    pub fn server(&self) -> ServerId {
        self.0.core.server()
    }

    /// Whether calls run in this process.
    #[must_use]
    pub fn is_in_process(&self) -> bool {
        self.0.core.in_process()
    }

    /// Calls that are unanswered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.core.slots.borrow().len()
    }

    /// Sends a call and returns the future of its reply, as one record. The call is on its way even if the future is
    /// not polled yet; dropping the future forgets it: unsent, it is never sent; sent, its reply is thrown away, and it is
    /// not sent again. The xid is the channel's own. All calls made during one wake-up go out in one write. There is no timeout: the future waits for a server that is
    /// away, and ends with an error only as [`CallError`] tells.
    ///
    /// Must be made inside a `LocalSet`.
    pub fn call(&self, message: Message) -> Call {
        self.call_split(message).whole()
    }

    /// As [`Channel::call`]; a reply that a server in this process made in parts comes in parts, without a copy.
    pub fn call_split(&self, message: Message) -> SplitCall {
        let core = &self.0.core;
        match core.submit(message, Waiter::Future(None)) {
            Ok(Submitted::Answered(reply)) => SplitCall::answered(reply),
            Ok(Submitted::Waiting(key)) => SplitCall::waiting(self.clone(), key),
            Err(error) => SplitCall::failed(error),
        }
    }

    /// Sends a call whose reply goes to the thread's [`ReplySink`] with `token`; for a server in this process possibly
    /// before this returns.
    ///
    /// Must be called inside a `LocalSet`.
    pub fn forward(&self, message: Message, token: u64) {
        let core = &self.0.core;
        match core.submit(message, Waiter::Sink(token)) {
            Ok(Submitted::Waiting(_)) => {}
            Ok(Submitted::Answered(reply)) => core.sink().give(token, Ok(reply)),
            Err(error) => core.sink().give(token, Err(error)),
        }
    }

    /// Fails all unanswered calls and all later ones with [`CallError::Gone`].
    pub fn close(&self) {
        self.0.core.leave();
    }

    /// Leads to the same server at another place from now on; `false` if that takes another channel.
    pub(crate) fn redirect(&self, target: &Target) -> bool {
        self.0.core.redirect(target)
    }
}

/// What became of a call as it was made.
enum Submitted {
    /// A server in this process answered at once.
    Answered(Message),
    /// It waits in this slot.
    Waiting(usize),
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Futures of calls keep the channel alive; what is left are forgotten and forwarded calls.
        self.core.leave();
    }
}
