//! One accepted connection, as its service and its task see it.

use crate::nudge::Nudge;
use crate::outbuf::OutBuf;
use crate::service::{Message, Peer};
use slice_metrics::clock;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

/// An accepted connection. A [`crate::service::LocalService`] keeps it to reply later; it stays on its thread.
#[derive(Clone)]
pub struct Connection(pub(super) Rc<Shared>);

/// What the connection's task shares with the holders of a [`Connection`].
pub(super) struct Shared {
    id: u64,
    peer: Peer,
    pub(super) out: RefCell<OutBuf>,
    /// Requests that wait for their reply, and their bytes.
    pending: Cell<u32>,
    pending_bytes: Cell<usize>,
    pub(super) nudge: Nudge,
    state: Cell<State>,
    /// Progress, for the sweep: records taken in, and whether one has begun.
    pub(super) records: Cell<u64>,
    pub(super) mid_record: Cell<bool>,
    /// When the last record was taken in, ns on the thread's coarse clock.
    heard_ns: Cell<u64>,
}

/// How little a connection loses if it is closed for a newcomer; the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rest {
    /// It has nothing under way.
    Idle,
    /// A record has begun, and nobody waits for an answer yet: it is sent again.
    MidRecord,
    /// Its peer has closed its side, and perhaps is gone: the answers may be for nobody.
    Left,
}

/// The life of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Requests are read and answered.
    Open,
    /// No more requests are read, because the peer sends no more or we end; what is pending is still answered.
    Finishing,
    /// To be closed at once, or closed.
    Closed,
}

impl Connection {
    pub(super) fn new(id: u64, peer: Peer) -> Self {
        Self(Rc::new(Shared {
            id,
            peer,
            out: RefCell::new(OutBuf::new()),
            pending: Cell::new(0),
            pending_bytes: Cell::new(0),
            nudge: Nudge::default(),
            state: Cell::new(State::Open),
            records: Cell::new(0),
            mid_record: Cell::new(false),
            heard_ns: Cell::new(clock::coarse()),
        }))
    }

    /// A number that no other connection of this process has had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// Whether replies still reach somebody.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.state.get() != State::Closed
    }

    /// Answers a request for which [`Handled::Detached`](crate::service::Handled::Detached) was, or is about to be,
    /// returned. All replies given during one wake-up go out in one write.
    pub fn reply(&self, mut message: Message) {
        self.answer(&mut message);
    }

    /// As [`Connection::reply`]; leaves `message` empty, so that its buffers serve again.
    pub fn answer(&self, message: &mut Message) {
        self.forget();
        self.0.send(message);
    }

    /// A detached request gets no reply: the client will ask again.
    pub fn forget(&self) {
        self.0.settled(None);
        self.0.nudge.wake();
    }

    /// Closes the connection without answering what is pending.
    pub fn close(&self) {
        self.0.enter(State::Closed);
    }

    /// Stops reading; the connection closes once what is pending is answered and sent.
    pub fn finish(&self) {
        if self.0.state.get() == State::Open {
            self.0.enter(State::Finishing);
        }
    }
}

impl Shared {
    pub(super) fn state(&self) -> State {
        self.state.get()
    }

    pub(super) fn enter(&self, state: State) {
        self.state.set(state);
        self.nudge.wake();
    }

    /// Queues a reply; the task sends it at the end of its wake-up.
    pub(super) fn send(&self, message: &mut Message) {
        if self.state.get() == State::Closed || message.is_empty() {
            *message = Message::default();
        } else if self.out.borrow_mut().push(message).is_err() {
            // A reply beyond the bound of a record is a fault of the service; the peer could not read on.
            *message = Message::default();
            tracing::error!(peer = %self.peer.addr, "a reply longer than a record: connection closed");
            self.state.set(State::Closed);
        }
    }

    /// A request of `bytes` has come in.
    pub(super) fn taken(&self, bytes: usize) {
        self.records.set(self.records.get() + 1);
        self.heard_ns.set(clock::coarse());
        self.pending.set(self.pending.get() + 1);
        self.pending_bytes.set(self.pending_bytes.get() + bytes);
    }

    /// A request has its answer. Where nobody remembers its length it is taken to have been an average one.
    pub(super) fn settled(&self, bytes: Option<usize>) {
        let pending = self.pending.get().max(1);
        let bytes = bytes.unwrap_or_else(|| self.pending_bytes.get() / pending as usize);
        self.pending.set(pending - 1);
        self.pending_bytes.set(if pending == 1 { 0 } else { self.pending_bytes.get().saturating_sub(bytes) });
    }

    /// The host at the other end.
    pub(super) fn host(&self) -> IpAddr {
        self.peer.addr.ip()
    }

    /// What it loses if it is closed now, and when it was last heard, ns; `None` if it must not be, or is closed already.
    pub(super) fn rest(&self) -> Option<(Rest, u64)> {
        let silent = self.pending.get() == 0 && self.out.borrow().is_empty();
        let rest = match self.state.get() {
            State::Closed => return None,
            State::Finishing => Rest::Left,
            State::Open if !silent => return None,
            State::Open if self.mid_record.get() => Rest::MidRecord,
            State::Open => Rest::Idle,
        };
        Some((rest, self.heard_ns.get()))
    }

    pub(super) fn pending(&self) -> (u32, usize) {
        (self.pending.get(), self.pending_bytes.get())
    }
}
