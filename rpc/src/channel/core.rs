//! What the handles of a channel and its driver share.

use super::in_process;
use super::link;
use super::slots::{Begun, Delivery, Slots, Waiter};
use super::{SinkCell, Submitted};
use crate::buffers;
use crate::directory::Target;
use crate::error::CallError;
use crate::framing::MAX_RECORD;
use crate::hello::Me;
use crate::nudge::Nudge;
use crate::outbuf::OutBuf;
use crate::service::{Handled, Message, Peer, Service};
use futures_util::future::LocalBoxFuture;
use slice_metrics::Calls;
use slice_proto::ids::{ServerId, Xid};
use slice_proto::procedures::{REFUSED, of_call, status_of};
use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Length of the shortest call header (RFC 5531 section 9): ten words.
const MIN_CALL: usize = 40;

pub(super) struct Core {
    server: ServerId,
    me: Option<Arc<Me>>,
    place: Place,
    pub(super) slots: RefCell<Slots>,
    sink: Rc<SinkCell>,
    calls: Option<Arc<Calls>>,
    /// Wakes the driver.
    pub(super) nudge: Nudge,
    /// The driver was started.
    driven: Cell<bool>,
    gone: Cell<bool>,
}

enum Place {
    Socket(Socket),
    InProcess(InProcess),
}

pub(super) struct Socket {
    addr: Cell<SocketAddr>,
    /// `addr` was changed: the connection leads to the wrong place.
    moved: Cell<bool>,
    pub(super) out: RefCell<OutBuf>,
    connected: Cell<bool>,
}

pub(super) struct InProcess {
    service: Arc<dyn Service>,
    /// How the service sees us.
    peer: Peer,
    /// Replies to be waited for that the driver has not taken over yet.
    pub(super) fresh: RefCell<Vec<(usize, LocalBoxFuture<'static, Message>)>>,
}

impl Core {
    pub(super) fn new(server: ServerId, target: Target, me: Option<Arc<Me>>, sink: Rc<SinkCell>) -> Self {
        let place = match target {
            Target::Socket(addr) => Place::Socket(Socket {
                addr: Cell::new(addr),
                moved: Cell::new(false),
                out: RefCell::default(),
                connected: Cell::new(false),
            }),
            Target::InProcess(service) => {
                let proved = me.as_ref().map(|me| (me.role, me.server));
                let peer = Peer { addr: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), proved };
                Place::InProcess(InProcess { service, peer, fresh: RefCell::default() })
            }
        };
        Self {
            server,
            me,
            place,
            slots: RefCell::default(),
            calls: sink.calls(server),
            sink,
            nudge: Nudge::default(),
            driven: Cell::new(false),
            gone: Cell::new(false),
        }
    }

    pub(super) fn server(&self) -> ServerId {
        self.server
    }

    pub(super) fn me(&self) -> Option<&Me> {
        self.me.as_deref()
    }

    pub(super) fn in_process(&self) -> bool {
        matches!(self.place, Place::InProcess(_))
    }

    pub(super) fn sink(&self) -> &SinkCell {
        &self.sink
    }

    pub(super) fn gone(&self) -> bool {
        self.gone.get()
    }

    /// Makes a call.
    pub(super) fn submit(self: &Rc<Self>, message: Message, waiter: Waiter) -> Result<Submitted, CallError> {
        let len = message.len();
        if self.gone.get() {
            return Err(CallError::Gone);
        }
        if !(MIN_CALL..=MAX_RECORD).contains(&len) {
            return Err(CallError::Length(len));
        }
        match &self.place {
            Place::Socket(socket) => {
                let mut slots = self.slots.borrow_mut();
                let begun = self.begin(&message);
                let (key, parts) = slots.insert(message, waiter, socket.connected.get(), begun)?;
                if socket.connected.get() {
                    socket.out.borrow_mut().push_shared(parts).map_err(|_| CallError::Length(len))?;
                }
                drop(slots);
                self.drive();
                Ok(Submitted::Waiting(key))
            }
            Place::InProcess(place) => self.run(place, message, waiter),
        }
    }

    fn begin(&self, message: &Message) -> Option<Begun> {
        let calls = self.calls.as_ref()?;
        let procedure = of_call(&message.head);
        Some(Begun { procedure, timing: calls.begin(procedure) })
    }

    /// Has a server in this process handle a call, here and now.
    fn run(
        self: &Rc<Self>,
        place: &InProcess,
        message: Message,
        waiter: Waiter,
    ) -> Result<Submitted, CallError> {
        if self.slots.borrow().len() >= super::MAX_IN_FLIGHT {
            return Err(CallError::Busy);
        }
        let begun = self.begin(&message);
        let mut reply = Message::from(buffers::take_arena());
        match place.service.call_message(&place.peer, message, &mut reply) {
            Handled::Done => {
                let head = reply.head.split();
                buffers::give_arena(std::mem::replace(&mut reply.head, head));
                if let (Some(calls), Some(Begun { procedure, timing })) = (&self.calls, begun) {
                    calls.at_once(procedure, timing, status_of(procedure, &reply.head));
                }
                Ok(Submitted::Answered(reply))
            }
            Handled::Later(later) => {
                buffers::give_arena(reply.head);
                let (key, _) = self.slots.borrow_mut().insert(Message::default(), waiter, true, begun)?;
                place.fresh.borrow_mut().push((key, later));
                self.drive();
                Ok(Submitted::Waiting(key))
            }
            Handled::Close | Handled::Detached => Err(CallError::Closed(1)),
        }
    }

    /// Sees to it that the driver runs soon.
    fn drive(self: &Rc<Self>) {
        if self.driven.replace(true) {
            self.nudge.wake();
            return;
        }
        let core = Rc::clone(self);
        tokio::task::spawn_local(async move {
            match &core.place {
                Place::Socket(socket) => link::drive(&core, socket).await,
                Place::InProcess(place) => in_process::drive(&core, place).await,
            }
        });
    }

    /// Ready once `what` gives something; asked again whenever the driver is woken.
    pub(super) fn poll<T>(&self, cx: &mut Context<'_>, what: impl FnOnce(&Self) -> Option<T>) -> Poll<T> {
        self.nudge.begin(cx);
        let got = what(self);
        self.nudge.end();
        got.map_or(Poll::Pending, Poll::Ready)
    }

    /// Hands a reply to whom it belongs.
    pub(super) fn reply(&self, xid: Xid, reply: Message) {
        let key = self.slots.borrow().key_of(xid);
        if let Some(key) = key {
            self.settle(key, Ok(reply));
        }
    }

    /// Ends the call in slot `key`.
    pub(super) fn settle(&self, key: usize, reply: Result<Message, CallError>) {
        let delivery = {
            let mut slots = self.slots.borrow_mut();
            if let (Some(calls), Some(Begun { procedure, timing })) = (&self.calls, slots.begun(key)) {
                let status = reply.as_ref().map_or(REFUSED, |reply| status_of(procedure, &reply.head));
                calls.later(procedure, timing, status);
            }
            slots.settle(key, reply)
        };
        self.deliver(delivery);
    }

    fn deliver(&self, delivery: Delivery) {
        match delivery {
            Delivery::Nothing => {}
            Delivery::Wake(waker) => waker.wake(),
            Delivery::Sink(token, reply) => self.sink.give(token, reply),
        }
    }

    /// Fails all unanswered calls.
    pub(super) fn fail(&self, error: &CallError) {
        let keys = self.slots.borrow().unanswered();
        keys.into_iter().for_each(|key| self.settle(key, Err(error.clone())));
    }

    /// The channel ends.
    pub(super) fn leave(&self) {
        if !self.gone.replace(true) {
            self.fail(&CallError::Gone);
            self.nudge.wake();
        }
    }

    /// The server moved; `false` if this channel cannot lead there.
    pub(super) fn redirect(&self, target: &Target) -> bool {
        match (&self.place, target) {
            (Place::Socket(socket), Target::Socket(addr)) => {
                if socket.addr.replace(*addr) != *addr {
                    socket.moved.set(true);
                    self.nudge.wake();
                }
                true
            }
            (Place::InProcess(place), Target::InProcess(service)) => Arc::ptr_eq(&place.service, service),
            _ => false,
        }
    }
}

// === impl Socket ===

impl Socket {
    /// The address to connect to; from here on another one counts as a move.
    pub(super) fn aim(&self) -> SocketAddr {
        self.moved.set(false);
        self.addr.get()
    }

    pub(super) fn moved(&self) -> bool {
        self.moved.get()
    }

    /// Calls made from now on are sent at once, or wait for the next connection.
    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.set(connected);
        if !connected {
            self.out.borrow_mut().clear();
        }
    }
}
