//! Who wants the log's thread to do what.

use crate::cache::Cell;
use parking_lot::{Condvar, Mutex};
use slice_store::{Progress, Ticket};
use std::sync::Arc;

/// Told that there is work.
pub(crate) type Turn = Box<dyn Fn() + Send + Sync>;

/// What the log's thread is asked for. Bounded by the requests in flight.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    /// Where there is no thread: told instead of `work`.
    call: Option<Turn>,
    /// How many groups are durable; fails when the log does.
    pub(crate) progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct State {
    objects: Vec<Arc<Cell>>,
    /// Groups taken so far.
    groups: u64,
    /// Too much is in memory: flush something, whoever's it is.
    pressed: bool,
    /// Segments may have become empty, or worth cleaning.
    freed: bool,
    idle: bool,
    stop: bool,
}

/// What the log's thread does next.
#[derive(Debug)]
pub(crate) enum Work {
    /// Make these objects durable, then this ticket.
    Group(Vec<Arc<Cell>>, Ticket),
    /// Flush some of what is in memory.
    Flush,
    /// Look after the segments.
    Tidy,
    /// Nothing is asked for: go on cleaning.
    Clean,
    /// End.
    Stop,
}

impl Queue {
    /// A queue without a thread: `call` is told when there is work and nobody at it.
    pub(crate) fn calling(call: Turn) -> Self {
        Self {
            call: Some(call),
            state: Mutex::new(State { idle: true, ..State::default() }),
            ..Self::default()
        }
    }

    /// Has an object made durable by the group whose ticket this is.
    pub(crate) fn commit(&self, cell: Arc<Cell>) -> Ticket {
        let mut state = self.state.lock();
        state.objects.push(cell);
        let ticket = Ticket(state.groups + 1);
        self.wake(&mut state);
        ticket
    }

    /// Has something flushed.
    pub(crate) fn press(&self) {
        let mut state = self.state.lock();
        state.pressed = true;
        self.wake(&mut state);
    }

    /// Has the segments looked after.
    pub(crate) fn freed(&self) {
        let mut state = self.state.lock();
        state.freed = true;
        self.wake(&mut state);
    }

    /// Has the thread end, whatever is asked for.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.stop = true;
        self.wake(&mut state);
    }

    fn wake(&self, state: &mut State) {
        if std::mem::take(&mut state.idle) {
            match &self.call {
                None => {
                    self.work.notify_one();
                }
                Some(call) => call(),
            }
        }
    }

    /// What is to be done next; waits if there is nothing and `cleaning` is over.
    pub(crate) fn next(&self, cleaning: bool) -> Work {
        let mut state = self.state.lock();
        loop {
            if let Some(work) = state.take(cleaning) {
                return work;
            }
            state.idle = true;
            self.work.wait(&mut state);
            state.idle = false;
        }
    }

    /// What is to be done next; none if there is nothing: then whoever brings work calls.
    pub(crate) fn poll(&self, cleaning: bool) -> Option<Work> {
        let mut state = self.state.lock();
        let work = state.take(cleaning);
        state.idle = work.is_none();
        work
    }

    /// Has a turn taken, where there is no thread.
    pub(crate) fn again(&self) {
        if let Some(call) = &self.call {
            call();
        }
    }
}

impl State {
    fn take(&mut self, cleaning: bool) -> Option<Work> {
        if self.stop {
            return Some(Work::Stop);
        }
        if !self.objects.is_empty() {
            self.groups += 1;
            return Some(Work::Group(std::mem::take(&mut self.objects), Ticket(self.groups)));
        }
        if std::mem::take(&mut self.pressed) {
            return Some(Work::Flush);
        }
        if std::mem::take(&mut self.freed) {
            return Some(Work::Tidy);
        }
        cleaning.then_some(Work::Clean)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({:?})", self.state)
    }
}
