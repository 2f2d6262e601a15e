//! The switch before the disk: lets a number of changes pass, then everything goes dark.

use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::sync::watch;

use super::names::{Disk, Outcome};

/// Whether an operation changes something: changes are what a cut is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It reads.
    Read,
    /// It changes the disk, or makes a change durable.
    Change,
}

/// A disk with a switch.
#[derive(Debug)]
pub struct Power {
    state: Mutex<State>,
    dark: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    /// None once it was taken out.
    disk: Option<Disk>,
    /// Changes until the cut.
    left: Option<u64>,
    /// Whether the change at which the power fails is still made, unanswered.
    last_is_made: bool,
    done: u64,
}

impl Power {
    /// The power is on.
    pub fn new(disk: Disk) -> Self {
        let state = State { disk: Some(disk), left: None, last_is_made: false, done: 0 };
        Self { state: Mutex::new(state), dark: watch::Sender::new(false) }
    }

    /// Cuts the power after so many more changes. The one after them fails; `last_is_made`: it is made all the same.
    pub fn cut_after(&self, changes: u64, last_is_made: bool) {
        let mut state = self.state.lock();
        (state.left, state.last_is_made) = (Some(changes), last_is_made);
    }

    /// Becomes true with the cut.
    pub fn dark(&self) -> watch::Receiver<bool> {
        self.dark.subscribe()
    }

    /// Changes made.
    pub fn done(&self) -> u64 {
        self.state.lock().done
    }

    /// Takes the disk out, with what is not durable still on it; what is asked from now on fails.
    pub fn take(&self) -> Option<Disk> {
        let mut state = self.state.lock();
        self.dark.send_replace(true);
        state.disk.take()
    }

    /// Does an operation, if there is power.
    pub fn run<T>(&self, kind: Kind, operation: impl FnOnce(&mut Disk) -> Outcome<T>) -> Outcome<T> {
        let mut state = self.state.lock();
        let State { disk: Some(disk), left, last_is_made, done } = &mut *state else { return Err(Errno::IO) };
        if *self.dark.borrow() {
            return Err(Errno::IO);
        }
        if kind == Kind::Read {
            return operation(disk);
        }
        if *left == Some(0) {
            if *last_is_made {
                let _ = operation(disk); // Nobody is left to be told.
            }
            self.dark.send_replace(true);
            return Err(Errno::IO);
        }
        *left = left.map(|left| left - 1);
        *done += 1;
        operation(disk)
    }
}
