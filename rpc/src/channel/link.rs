//! The driver of a channel to a socket: connects when there is something to say, greets, sends what is unanswered,
//! then reads and writes until the connection breaks; and again.

use super::core::{Core, Socket};
use super::slots::MAX_SENDS;
use crate::error::{CallError, Error, hello_sentence};
use crate::framing::MAX_RECORD;
use crate::hello;
use crate::intake::Intake;
use crate::service::{Message, message_type};
use crate::socket;
use slice_metrics::{Phase, Phases, Trace, clock};
use slice_proto::peer::hello::HelloStatus;
use slice_proto::rpc_msg::{REPLY, peek_xid};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

/// Bytes read per wake-up before others get their turn.
const READ_BUDGET: usize = 256 << 10;

/// A connection that is not made within this time is tried again: the kernel alone would try for two minutes.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Pauses between tries: a server that restarts is back within milliseconds, one that is away must not be hammered.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Drives the channel until its end.
pub(super) async fn drive(core: &Core, socket: &Socket) {
    let mut pause = Duration::ZERO;
    loop {
        poll_fn(|cx| core.poll(cx, |c| (c.gone() || c.slots.borrow().awaits()).then_some(()))).await;
        if core.gone() {
            return;
        }
        let connected = tokio::select! {
            connected = connect(core, socket) => connected,
            () = interrupted(core, socket) => continue,
        };
        match connected {
            Ok(mut link) => {
                send_unanswered(core, socket);
                socket.set_connected(true);
                poll_fn(|cx| link.poll(core, socket, cx)).await;
                socket.set_connected(false);
                if link.answered {
                    pause = Duration::ZERO;
                }
            }
            Err(Error::Hello(status)) if status != HelloStatus::Server => {
                let sentence = hello_sentence(status);
                tracing::warn!(server = %core.server(), addr = %socket.aim(), sentence, "hello refused");
                core.fail(&CallError::Refused(sentence));
            }
            Err(error) => tracing::debug!(server = %core.server(), %error, "cannot connect"),
        }
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = interrupted(core, socket) => {}
            }
        }
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}

/// Ready when the channel ends or its server moves.
async fn interrupted(core: &Core, socket: &Socket) {
    poll_fn(|cx| core.poll(cx, |c| (c.gone() || socket.moved()).then_some(()))).await;
}

async fn connect(core: &Core, socket: &Socket) -> Result<Link, Error> {
    let addr = socket.aim();
    let connecting = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(addr));
    let mut stream = connecting.await.map_err(|_| Error::Io(io::ErrorKind::TimedOut.into()))??;
    socket::prepare(&stream)?;
    let mut intake = Intake::new(MAX_RECORD);
    if let Some(me) = core.me() {
        hello::send(me, core.server(), &mut stream, &mut intake).await?;
    }
    Ok(Link { stream, intake, answered: false })
}

/// Queues every unanswered call on a new connection.
fn send_unanswered(core: &Core, socket: &Socket) {
    let (keys, spent) = core.slots.borrow_mut().resend();
    let slots = core.slots.borrow();
    for parts in keys.into_iter().filter_map(|key| slots.parts(key)) {
        // Their length was checked as they were made.
        let _ = socket.out.borrow_mut().push_shared(parts);
    }
    drop(slots);
    spent.into_iter().for_each(|key| core.settle(key, Err(CallError::Closed(MAX_SENDS))));
}

/// A connection to the server.
struct Link {
    stream: TcpStream,
    intake: Intake,
    /// Some call was answered on it.
    answered: bool,
}

/// Why reading stopped.
enum Took {
    All,
    Budget,
    /// The connection is of no more use.
    Broken,
}

impl Link {
    /// One wake-up: hand out every reply that has come, send every call that was made. Ready when the connection is
    /// broken or not wanted any more.
    fn poll(&mut self, core: &Core, socket: &Socket, cx: &mut Context<'_>) -> Poll<()> {
        clock::tick();
        let phases = core.sink().phases();
        let mut trace = phases.as_ref().map_or(Trace::NONE, |phases| phases.wake());
        core.nudge.begin(cx);
        let took = self.take_in(core, cx, phases.as_deref(), &mut trace);
        self.intake.settle();
        lap(phases.as_deref(), &mut trace, None);
        let flushed = socket.out.borrow_mut().poll_flush(&mut self.stream, cx);
        lap(phases.as_deref(), &mut trace, Some(Phase::Send));
        core.nudge.end();
        if matches!(took, Took::Broken)
            || matches!(flushed, Poll::Ready(Err(_)))
            || core.gone()
            || socket.moved()
        {
            return Poll::Ready(());
        }
        if matches!(took, Took::Budget) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn take_in(
        &mut self,
        core: &Core,
        cx: &mut Context<'_>,
        phases: Option<&Phases>,
        trace: &mut Trace,
    ) -> Took {
        let mut budget = READ_BUDGET;
        loop {
            lap(phases, trace, None);
            match self.intake.next() {
                Ok(Some(record)) => {
                    lap(phases, trace, Some(Phase::Receive));
                    let (Some(xid), Some(REPLY)) = (peek_xid(&record), message_type(&record)) else {
                        return Took::Broken;
                    };
                    self.answered = true;
                    core.reply(xid, Message::from(record));
                    continue;
                }
                Ok(None) if budget == 0 => return Took::Budget,
                Ok(None) => {}
                Err(_) => return Took::Broken,
            }
            let filled = self.intake.poll_fill(&mut self.stream, cx);
            lap(phases, trace, Some(Phase::Receive));
            match filled {
                Poll::Pending => return Took::All,
                Poll::Ready(Ok(n)) if n > 0 => budget = budget.saturating_sub(n),
                Poll::Ready(_) => return Took::Broken,
            }
        }
    }
}

/// What was done since the last lap is counted as `phase`, or elsewhere.
fn lap(phases: Option<&Phases>, trace: &mut Trace, phase: Option<Phase>) {
    match (phases, phase) {
        (Some(phases), Some(phase)) => phases.lap(trace, phase),
        (Some(phases), None) => phases.skip(trace),
        (None, _) => {}
    }
}
