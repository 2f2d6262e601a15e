//! The switch before the disk: lets a number of changes pass, then everything goes dark; or says that some of what it is asked for fails.

use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::sync::watch;

use super::names::{Disk, Ino, Outcome};

/// What an operation does. Changes and syncs are what a cut is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It looks at names and attributes.
    Look,
    /// It reads bytes.
    Read,
    /// It changes bytes, sizes or names.
    Change,
    /// It makes changes of this file or directory durable.
    Sync(Ino),
}

/// How a disk fails that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// fsync fails with EIO. What it should have made durable still reads as it was written, and is on no disk, whatever is fsynced
    /// later: a kernel does not write again what it could not write.
    Sync,
    /// Every change fails with EIO.
    Write,
    /// Bytes cannot be read: EIO. Names and attributes can.
    Read,
    /// A file system that its errors have made read-only: changes fail with EROFS, and so does fsync of what was changed.
    ReadOnly,
}

impl Fault {
    /// What an operation of this kind comes to.
    fn error(self, kind: Kind) -> Option<Errno> {
        match (self, kind) {
            (Self::Sync, Kind::Sync(_)) | (Self::Write, Kind::Change) | (Self::Read, Kind::Read) => {
                Some(Errno::IO)
            }
            (Self::ReadOnly, Kind::Change | Kind::Sync(_)) => Some(Errno::ROFS),
            _ => None,
        }
    }
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
    fault: Option<Fault>,
    /// Operations that failed by it.
    faults: u64,
}

impl Power {
    /// The power is on.
    pub fn new(disk: Disk) -> Self {
        let state =
            State { disk: Some(disk), left: None, last_is_made: false, done: 0, fault: None, faults: 0 };
        Self { state: Mutex::new(state), dark: watch::Sender::new(false) }
    }

    /// Cuts the power after so many more changes. The one after them fails; `last_is_made`: it is made all the same.
    pub fn cut_after(&self, changes: u64, last_is_made: bool) {
        let mut state = self.state.lock();
        (state.left, state.last_is_made) = (Some(changes), last_is_made);
    }

    /// From now on the disk fails like this; none: it works again.
    pub fn fail(&self, fault: Option<Fault>) {
        let mut state = self.state.lock();
        (state.fault, state.faults) = (fault, 0);
    }

    /// Operations that have failed by the present fault.
    pub fn faults(&self) -> u64 {
        self.state.lock().faults
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
        let State { disk: Some(disk), left, last_is_made, done, fault, faults } = &mut *state else {
            return Err(Errno::IO);
        };
        if *self.dark.borrow() {
            return Err(Errno::IO);
        }
        if let Some(error) = fault.and_then(|fault| fault.error(kind)) {
            *faults += 1;
            if let Kind::Sync(ino) = kind {
                disk.forsake(ino)?;
            }
            return Err(error);
        }
        if matches!(kind, Kind::Look | Kind::Read) {
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
