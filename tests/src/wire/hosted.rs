//! One ensemble for many tests: started by the first that needs it, stopped by the last.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::ensemble::{Ensemble, Layout, Options, Policy};
use crate::process::free_port;

/// What is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub name: &'static str,
    pub policy: Policy,
    pub layout: Layout,
    /// One server a role, or several.
    pub several: bool,
    pub root_squash: bool,
    /// More flags of `slice up`.
    pub flags: &'static [&'static str],
}

/// Where an ensemble answers.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub nfs: SocketAddr,
    /// Where portmap answers besides, as `--portmap` says.
    pub portmap: SocketAddr,
}

/// An ensemble that tests share. It ends when the last of them lets go.
#[derive(Debug)]
pub struct Hosted {
    plan: Plan,
    started: Mutex<Option<Result<Running, String>>>,
}

#[derive(Debug)]
struct Running {
    at: At,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Plan {
    #[must_use]
    pub fn options(&self) -> Options {
        let mut options = Options::new(self.policy, self.layout);
        if !self.several {
            (options.dirservers, options.smallfiles, options.blockstores) = (1, 1, 1);
        }
        options.root_squash = self.root_squash;
        options
    }
}

impl Hosted {
    #[must_use]
    pub fn new(plan: Plan) -> Arc<Self> {
        Arc::new(Self { plan, started: Mutex::new(None) })
    }

    #[must_use]
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Starts it if no test did so before.
    ///
    /// # Errors
    /// Why it did not start; the same for all who ask.
    pub fn at(&self) -> Result<At, String> {
        let mut started = self.started.lock().unwrap();
        let outcome = started.get_or_insert_with(|| start(self.plan));
        outcome.as_ref().map(|running| running.at).map_err(Clone::clone)
    }
}

/// The processes die with the thread that starts them: so it is one that lives as long as they are wanted.
fn start(plan: Plan) -> Result<Running, String> {
    let (stop, stopped) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let host = || {
            let portmap = free_port().map_err(|e| e.to_string())?;
            let mut options = plan.options();
            options.more = vec!["--portmap".into(), format!("127.0.0.1:{portmap}")];
            options.more.extend(plan.flags.iter().map(|flag| (*flag).to_owned()));
            let ensemble = Ensemble::start(&format!("hosted-{}", plan.name), options);
            let ensemble = ensemble.map_err(|e| e.to_string())?;
            let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
            Ok::<_, String>((At { nfs: at(ensemble.port()), portmap: at(portmap) }, ensemble))
        };
        match host() {
            Ok((at, ensemble)) => {
                tell.send(Ok(at)).unwrap();
                let _ = stopped.recv(); // The sender is gone: nobody wants it any more.
                drop(ensemble);
            }
            Err(why) => tell.send(Err(why)).unwrap(),
        }
    });
    let at = told.recv().map_err(|_| "the ensemble's host has ended".to_owned())??;
    Ok(Running { at, stop, thread })
}

impl Drop for Hosted {
    fn drop(&mut self) {
        if let Ok(Some(Ok(Running { stop, thread, .. }))) = self.started.get_mut().map(Option::take) {
            drop(stop);
            let _ = thread.join();
        }
    }
}
