//! Who wants the log's thread to do what.

use crate::cache::Cell;
use parking_lot::{Condvar, Mutex};
use slice_store::{Progress, Ticket};
use std::sync::Arc;

/// What the log's thread is asked for. Bounded by the requests in flight.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    work: Condvar,
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
            self.work.notify_one();
        }
    }

    /// What is to be done next; waits if there is nothing and `cleaning` is over.
    pub(crate) fn next(&self, cleaning: bool) -> Work {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return Work::Stop;
            }
            if !state.objects.is_empty() {
                state.groups += 1;
                return Work::Group(std::mem::take(&mut state.objects), Ticket(state.groups));
            }
            if std::mem::take(&mut state.pressed) {
                return Work::Flush;
            }
            if std::mem::take(&mut state.freed) {
                return Work::Tidy;
            }
            if cleaning {
                return Work::Clean;
            }
            state.idle = true;
            self.work.wait(&mut state);
            state.idle = false;
        }
    }
}
