//! What is counted while a workload runs.

use crate::Error;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::Notify;

/// Longest latency that is told apart, in nanoseconds: a minute.
const MAX_LATENCY_NS: u64 = 60_000_000_000;
/// Digits to which latencies are kept.
const DIGITS: u8 = 3;

/// Counts calls while it is on. Shared by all callers of a workload.
#[derive(Debug)]
pub struct Meter {
    on: Cell<bool>,
    stopped: Cell<bool>,
    limit: Cell<u64>,
    calls: Cell<u64>,
    units: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
    reached: Notify,
}

/// What was counted.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Calls whose reply came while the meter was on.
    pub calls: u64,
    /// What they moved, in the workload's unit.
    pub units: u64,
    /// Median latency, in nanoseconds.
    pub p50_ns: u64,
    /// 99th percentile of the latency, in nanoseconds.
    pub p99_ns: u64,
}

// === impl Meter ===

impl Meter {
    /// A meter that is off.
    ///
    /// # Errors
    /// None in practice: the histogram's bounds are constants.
    pub fn new() -> Result<Rc<Self>, Error> {
        let latency = Histogram::new_with_bounds(1, MAX_LATENCY_NS, DIGITS)
            .map_err(|_| Error::Protocol("the histogram's bounds are wrong"))?;
        Ok(Rc::new(Self {
            on: Cell::new(false),
            stopped: Cell::new(false),
            limit: Cell::new(u64::MAX),
            calls: Cell::new(0),
            units: Cell::new(0),
            latency: RefCell::new(latency),
            reached: Notify::new(),
        }))
    }

    /// Runs a call and, if the meter is on when it ends, counts it.
    ///
    /// # Errors
    /// The call's.
    pub async fn timed<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let start = Instant::now();
        let result = call.await?;
        if self.on.get() {
            let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.latency.borrow_mut().saturating_record(ns);
            self.calls.set(self.calls.get() + 1);
            if self.calls.get() >= self.limit.get() {
                self.reached.notify_one();
            }
        }
        Ok(result)
    }

    /// Counts what a call moved, in the workload's unit.
    pub fn moved(&self, units: u64) {
        if self.on.get() {
            self.units.set(self.units.get() + units);
        }
    }

    /// Begins to count; [`Self::limit_reached`] resolves at `limit` calls.
    pub fn switch_on(&self, limit: u64) {
        self.limit.set(limit);
        self.on.set(true);
    }

    /// Resolves once the limit is reached.
    pub async fn limit_reached(&self) {
        self.reached.notified().await;
    }

    /// Stops counting and tells the callers to stop after their current step.
    pub fn stop(&self) -> Counted {
        self.on.set(false);
        self.stopped.set(true);
        let latency = self.latency.borrow();
        Counted {
            calls: self.calls.get(),
            units: self.units.get(),
            p50_ns: latency.value_at_quantile(0.50),
            p99_ns: latency.value_at_quantile(0.99),
        }
    }

    /// Whether callers go on.
    #[must_use]
    pub fn running(&self) -> bool {
        !self.stopped.get()
    }
}
