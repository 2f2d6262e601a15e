//! A server and how long to torment it: what the stock-client suites have in common.

use std::fmt;

use rustix::process::Signal;

use crate::ensemble::{Ensemble, Layout, Options, Policy};
use crate::error::Error;
use crate::ganesha::Ganesha;
use crate::guest::Mount;
use crate::process::Process;

/// How much a run does: `SLICE_TEST_LENGTH`, which `cargo xtask test` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Length {
    /// `--quick`: minutes, while developing.
    Quick,
    /// What continuous integration runs.
    Normal,
    /// `--full`: every length that docs/stock-client.md names.
    Full,
}

impl Length {
    /// This run's.
    pub fn get() -> Self {
        match std::env::var("SLICE_TEST_LENGTH").as_deref() {
            Ok("quick") => Self::Quick,
            Ok("full") => Self::Full,
            _ => Self::Normal,
        }
    }

    /// One of three values.
    pub fn pick<T>(self, quick: T, normal: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Normal => normal,
            Self::Full => full,
        }
    }
}

/// The server that a suite runs against: Slice, or the reference when `SLICE_TEST_SERVER=ganesha`.
#[derive(Debug)]
pub enum Server {
    /// The program under test.
    Slice(Box<Ensemble>),
    /// nfs-ganesha, to tell the server's faults from the stage's.
    Ganesha(Ganesha),
}

impl Server {
    /// Starts an ensemble of several servers of each role. `suite` names its log.
    pub fn start(suite: &str, policy: Policy, layout: Layout) -> Result<Self, Error> {
        if reference() {
            return Ok(Self::Ganesha(Ganesha::start()?));
        }
        let ensemble = Ensemble::start(&run_name(suite, policy, layout), Options::new(policy, layout))?;
        Ok(Self::Slice(Box::new(ensemble)))
    }

    /// How a guest mounts it.
    pub fn mount(&self) -> Mount {
        match self {
            Self::Slice(ensemble) => ensemble.mount(),
            Self::Ganesha(ganesha) => ganesha.mount(),
        }
    }

    /// A second way in: another µproxy; for the reference, another mount of the same port that shares no cache.
    pub fn second(&self) -> Result<Second, Error> {
        match self {
            Self::Slice(ensemble) => {
                let (process, port) = ensemble.second_proxy()?;
                Ok(Second { mount: Mount::new(port), _process: Some(process) })
            }
            Self::Ganesha(ganesha) => {
                Ok(Second { mount: ganesha.mount().option("nosharecache"), _process: None })
            }
        }
    }

    /// SIGKILL to all of it.
    pub fn kill(&mut self) {
        match self {
            Self::Slice(ensemble) => ensemble.kill(),
            Self::Ganesha(ganesha) => ganesha.kill(),
        }
    }

    /// Starts it again with what it had stored.
    pub fn restart(&mut self) -> Result<(), Error> {
        match self {
            Self::Slice(ensemble) => ensemble.restart(),
            Self::Ganesha(ganesha) => ganesha.restart(),
        }
    }

    /// SIGKILL to one server of this role; it comes back by itself. False where there is no such thing: the reference,
    /// and all roles in one process.
    pub fn kill_role(&self, role: &str) -> Result<bool, Error> {
        let Self::Slice(ensemble) = self else { return Ok(false) };
        let server = ensemble.server(role, 0)?;
        ensemble.signal(&server, Signal::KILL)?;
        Ok(true)
    }

    /// Ends it: an ensemble has to stop cleanly, and not to have died before.
    pub fn stop(self) -> Result<(), Error> {
        match self {
            Self::Slice(mut ensemble) => ensemble.stop(),
            Self::Ganesha(_) => Ok(()),
        }
    }
}

/// A second way into a server; its µproxy is killed when this is dropped.
#[derive(Debug)]
pub struct Second {
    mount: Mount,
    _process: Option<Process>,
}

impl Second {
    /// How a guest mounts it, at `/mnt2`.
    pub fn mount(&self) -> Mount {
        self.mount.clone().at("/mnt2")
    }
}

/// True if the suites run against nfs-ganesha.
pub fn reference() -> bool {
    std::env::var("SLICE_TEST_SERVER").is_ok_and(|server| server == "ganesha")
}

/// A name for the logs of one test: suite, policy, layout.
pub fn run_name(suite: &str, policy: Policy, layout: Layout) -> String {
    format!("{suite}-{policy}-{layout}")
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Partition => "partition",
            Self::Mkdir => "mkdir",
            Self::Hash => "hash",
        })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneProcess => "one_process",
            Self::Separate => "separate",
        })
    }
}

/// One test a policy and layout, each of them calling `$run(policy, layout)`. They need qemu and packages, so a plain
/// `cargo test` lists them as ignored and `cargo xtask test` runs them.
#[macro_export]
macro_rules! stock_suite {
    ($run:path) => {
        $crate::stock_suite!(@ $run, partition_one_process, Partition, OneProcess);
        $crate::stock_suite!(@ $run, mkdir_one_process, Mkdir, OneProcess);
        $crate::stock_suite!(@ $run, hash_one_process, Hash, OneProcess);
        $crate::stock_suite!(@ $run, partition_separate, Partition, Separate);
        $crate::stock_suite!(@ $run, mkdir_separate, Mkdir, Separate);
        $crate::stock_suite!(@ $run, hash_separate, Hash, Separate);
    };
    (@ $run:path, $name:ident, $policy:ident, $layout:ident) => {
        #[test]
        #[ignore = "stock client: run by cargo xtask test"]
        fn $name() {
            if let Err(error) = $run($crate::ensemble::Policy::$policy, $crate::ensemble::Layout::$layout) {
                panic!("{error}");
            }
        }
    };
}
