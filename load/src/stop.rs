//! Ctrl-C: the workload ends early, with what it has.

use std::cell::Cell;
use std::rc::Rc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// What a shell reports for a program that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Whether a stop was asked for. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Rc<State>);

#[derive(Debug, Default)]
struct State {
    asked: Cell<bool>,
    notify: Notify,
}

impl Stop {
    /// From now on the first SIGINT or SIGTERM asks for a stop; the second ends the program. Must run within a `LocalSet`.
    /// Where the system does not let us hear signals, they end the program at once.
    #[must_use]
    pub fn on_signals() -> Self {
        let stop = Self::default();
        if let (Ok(mut int), Ok(mut term)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        {
            let asked = stop.clone();
            tokio::task::spawn_local(async move {
                loop {
                    tokio::select! {
                        _ = int.recv() => {}
                        _ = term.recv() => {}
                    }
                    if asked.asked() {
                        std::process::exit(INTERRUPTED);
                    }
                    asked.ask();
                }
            });
        }
        stop
    }

    /// Asks for a stop.
    pub fn ask(&self) {
        self.0.asked.set(true);
        self.0.notify.notify_waiters();
    }

    /// Whether one was asked for.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.0.asked.get()
    }

    /// Resolves when one was asked for.
    pub async fn wait(&self) {
        let heard = self.0.notify.notified();
        if !self.asked() {
            heard.await;
        }
    }
}
