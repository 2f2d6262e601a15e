//! The task that serves one connection. One wake-up: take in everything that has come, have every complete record
//! answered, send all replies in one write.

use super::Limits;
use super::connection::{Connection, Shared, State};
use super::weight::weight;
use crate::buffers;
use crate::intake::Intake;
use crate::service::{Handled, LocalService, Message, message_type};
use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use slice_metrics::{Phase, Phases, Trace, clock};
use slice_proto::rpc_msg::CALL;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes read per wake-up before other connections get their turn.
const READ_BUDGET: usize = 256 << 10;

/// A reply that waits for something, and the weight of its request.
struct Later {
    reply: LocalBoxFuture<'static, Message>,
    bytes: usize,
}

impl Future for Later {
    type Output = (Message, usize);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(self.reply.as_mut().poll(cx));
        Poll::Ready((reply, self.bytes))
    }
}

/// Why taking in stopped.
enum Took {
    /// The socket has nothing more.
    All,
    /// The budget is used up.
    Budget,
    /// A limit is reached.
    Full,
    /// No more is wanted: the connection is finishing.
    Nothing,
}

/// The connection must be closed.
struct Close;

pub(super) struct Task<S> {
    stream: S,
    intake: Intake,
    shared: Rc<Shared>,
    connection: Connection,
    service: Rc<dyn LocalService>,
    limits: Limits,
    later: FuturesUnordered<Later>,
    reply: Message,
    phases: Option<Rc<Phases>>,
    trace: Trace,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Task<S> {
    pub(super) fn new(
        stream: S,
        intake: Intake,
        connection: Connection,
        service: Rc<dyn LocalService>,
        limits: Limits,
    ) -> Self {
        let shared = Rc::clone(&connection.0);
        let later = FuturesUnordered::new();
        let (phases, trace, reply) = (service.phases(), Trace::NONE, Message::default());
        Self { stream, intake, shared, connection, service, limits, later, reply, phases, trace }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self) {
        self.service.opened(&self.connection);
        poll_fn(|cx| self.poll(cx)).await;
        let Self { stream, shared, connection, service, mut later, .. } = self;
        shared.enter(State::Closed);
        shared.out.borrow_mut().clear();
        drop(stream);
        service.closed(&connection);
        // What has begun runs to its end: an operation at several sites must not stop half-way because its client left.
        while later.next().await.is_some() {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        clock::tick();
        self.trace = self.phases.as_ref().map_or(Trace::NONE, |phases| phases.wake());
        self.shared.nudge.begin(cx);
        let result = self.wake_up(cx);
        self.intake.settle();
        // What is not read because of our own limits, or not any more, is not the peer's delay.
        let reads = self.shared.state() == State::Open && !self.full();
        self.shared.mid_record.set(self.intake.mid_record() && reads);
        buffers::give_write(std::mem::take(&mut self.reply.head));
        self.shared.nudge.end();
        result
    }

    fn wake_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut budget = READ_BUDGET;
        loop {
            let Ok(took) = self.take_in(cx, &mut budget) else {
                // Replies to what came before the offence are still owed, as far as the socket takes them at once.
                let _ = self.shared.out.borrow_mut().poll_flush(&mut self.stream, cx);
                return Poll::Ready(());
            };
            while let Poll::Ready(Some((mut message, bytes))) = self.later.poll_next_unpin(cx) {
                self.shared.settled(Some(bytes));
                self.shared.send(&mut message);
            }
            if self.shared.state() == State::Closed {
                return Poll::Ready(());
            }
            self.skip();
            let flushed = self.shared.out.borrow_mut().poll_flush(&mut self.stream, cx);
            self.lap(Phase::Send);
            if let Poll::Ready(Err(_)) = flushed {
                return Poll::Ready(());
            }
            match took {
                Took::All => return Poll::Pending,
                Took::Budget => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // Whoever makes room wakes us: a reply, or the socket.
                Took::Full if self.full() => return Poll::Pending,
                Took::Full => {}
                Took::Nothing if flushed.is_ready() && self.shared.pending().0 == 0 => return Poll::Ready(()),
                Took::Nothing => return Poll::Pending,
            }
        }
    }

    /// Takes in what the socket has and has every complete record handled.
    fn take_in(&mut self, cx: &mut Context<'_>, budget: &mut usize) -> Result<Took, Close> {
        loop {
            match self.shared.state() {
                State::Open => {}
                State::Finishing => return Ok(Took::Nothing),
                State::Closed => return Err(Close),
            }
            if self.full() {
                return Ok(Took::Full);
            }
            self.skip();
            if let Some(record) = self.intake.next().map_err(|_| Close)? {
                self.lap(Phase::Receive);
                self.handle(record)?;
                continue;
            }
            if *budget == 0 {
                return Ok(Took::Budget);
            }
            let filled = self.intake.poll_fill(&mut self.stream, cx);
            self.lap(Phase::Receive);
            match filled {
                Poll::Pending => return Ok(Took::All),
                Poll::Ready(Ok(n)) if n > 0 => *budget = budget.saturating_sub(n),
                // It sends no more, but may still read: shutdown(SHUT_WR) looks like close until we write.
                Poll::Ready(Ok(_)) => {
                    self.connection.finish();
                    return Ok(Took::Nothing);
                }
                Poll::Ready(Err(_)) => return Err(Close),
            }
        }
    }

    fn handle(&mut self, record: BytesMut) -> Result<(), Close> {
        let bytes = weight(&record);
        // Anything but a call is no business of a server: garbage ends here.
        if message_type(&record) != Some(CALL) {
            return Err(Close);
        }
        if self.reply.head.capacity() == 0 {
            self.reply.head = buffers::take_write();
        }
        self.shared.taken(bytes);
        match self.service.call(&self.connection, record, &mut self.reply) {
            Handled::Done => {
                self.shared.settled(Some(bytes));
                self.shared.send(&mut self.reply);
            }
            Handled::Later(reply) => self.later.push(Later { reply, bytes }),
            Handled::Detached => {}
            Handled::Close => return Err(Close),
        }
        Ok(())
    }

    /// What was done since the last lap is counted as `phase`.
    fn lap(&mut self, phase: Phase) {
        if let Some(phases) = &self.phases {
            phases.lap(&mut self.trace, phase);
        }
    }

    /// What was done since the last lap is counted elsewhere.
    fn skip(&mut self) {
        if let Some(phases) = &self.phases {
            phases.skip(&mut self.trace);
        }
    }

    fn full(&self) -> bool {
        let (pending, bytes) = self.shared.pending();
        pending >= self.limits.pending
            || bytes >= self.limits.pending_bytes
            || self.shared.out.borrow().len() >= self.limits.unsent_bytes
    }
}
