//! What a µproxy counts of its own work: clients' calls, its own calls by server, CPU time by phase, what it holds.
//! Each thread has its own figures, so that counting never meets another core's cache.

use slice_metrics::{Calls, CallsOf, Counter, Phase, PhasesOf, Samples};
use slice_proto::ids::ServerId;
use slice_proto::procedures::{self, status_name};
use slice_proto::table::RoutingTable;
use slice_rpc::Targets;
use std::sync::Arc;

/// All threads' figures.
#[derive(Debug)]
pub struct Watched {
    /// Clients' calls.
    pub clients: CallsOf,
    /// Our calls, by server.
    pub targets: Arc<Targets>,
    /// CPU time.
    pub phases: PhasesOf,
    threads: parking_lot::Mutex<Vec<Arc<Held>>>,
}

/// What one thread holds: gauges, set now and then.
#[derive(Debug, Default)]
pub struct Held {
    /// Files remembered.
    pub files: Counter,
    /// Of these, files with growth or times to be pushed.
    pub dirty: Counter,
    /// Calls forwarded by token and not answered.
    pub forwarded: Counter,
    /// Answers kept for copies of their calls.
    pub answers: Counter,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            clients: CallsOf::new(procedures::COUNT),
            targets: Arc::default(),
            phases: PhasesOf::default(),
            threads: parking_lot::Mutex::default(),
        }
    }
}

impl Watched {
    /// One more thread's gauges.
    pub fn held(&self) -> Arc<Held> {
        let held = Arc::<Held>::default();
        self.threads.lock().push(Arc::clone(&held));
        held
    }

    /// One more thread's counts of clients' calls.
    pub fn calls(&self) -> Arc<Calls> {
        self.clients.thread()
    }

    /// Calls since start, by procedure name, as `slice status` shows them.
    #[must_use]
    pub fn ops(&self) -> Vec<(String, u64)> {
        self.clients.sums().iter().map(|s| (procedures::name(s.procedure).to_owned(), s.begun)).collect()
    }

    /// Everything.
    pub fn samples(&self, table: &RoutingTable, out: &mut Samples) {
        for sum in self.clients.sums() {
            let procedure = procedures::name(sum.procedure);
            let own = [("procedure", procedure)];
            out.counter(
                "slice_proxy_requests_total",
                "Clients' requests that came in.",
                &own,
                sum.begun as f64,
            );
            out.seconds(
                "slice_proxy_request_duration_seconds",
                "Time from a client's request to its reply.",
                &own,
                sum.latency,
            );
            for (status, n) in sum.errors {
                let labels = [("procedure", procedure), ("status", status_name(status))];
                let help = "Replies to clients with a status other than OK.";
                out.counter("slice_proxy_errors_total", help, &labels, n as f64);
            }
        }
        for (server, calls) in self.targets.all() {
            let role = table.servers.get(&server).map_or("unknown", |entry| entry.role.name());
            let target = server.to_string();
            for sum in calls.sums() {
                let procedure = procedures::name(sum.procedure);
                let own = [("target_role", role), ("target", &*target), ("procedure", procedure)];
                let help = "Calls of the µproxy to a server.";
                out.counter("slice_proxy_calls_total", help, &own, sum.begun as f64);
                out.seconds(
                    "slice_proxy_call_duration_seconds",
                    "Time from a call to a server to its reply.",
                    &own,
                    sum.latency,
                );
                for (status, n) in sum.errors {
                    let status = ("status", status_name(status));
                    let labels =
                        [("target_role", role), ("target", &*target), ("procedure", procedure), status];
                    let help = "Replies of servers to the µproxy with a status other than OK.";
                    out.counter("slice_proxy_call_errors_total", help, &labels, n as f64);
                }
            }
        }
        for (phase, ns) in self.phases.sums_ns() {
            let help = "CPU time of the µproxy by phase, sampled: one request, and one wake-up, in 32 stands for all.";
            let name = "slice_proxy_phase_cpu_seconds_total";
            out.counter(name, help, &[("phase", phase_label(phase))], ns as f64 / 1e9);
        }
        let threads = self.threads.lock();
        let sum = |of: fn(&Held) -> &Counter| threads.iter().map(|held| of(held).get()).sum::<u64>() as f64;
        let mut gauge = |name, help, value| out.gauge(name, help, &[], value);
        gauge("slice_proxy_soft_files", "Files that the µproxy remembers.", sum(|h| &h.files));
        gauge(
            "slice_proxy_soft_dirty_files",
            "Files whose growth or times are not pushed to their home yet.",
            sum(|h| &h.dirty),
        );
        gauge(
            "slice_proxy_forwarded_requests",
            "Requests forwarded to a server and not answered yet.",
            sum(|h| &h.forwarded),
        );
        gauge(
            "slice_proxy_kept_answers",
            "Answers kept for copies of calls that come late.",
            sum(|h| &h.answers),
        );
    }

    /// Calls to each server since start.
    #[must_use]
    pub fn asked(&self) -> Vec<(ServerId, u64)> {
        let begun = |calls: &CallsOf| calls.sums().iter().map(|sum| sum.begun).sum();
        self.targets.all().iter().map(|(server, calls)| (*server, begun(calls))).collect()
    }
}

const fn phase_label(phase: Phase) -> &'static str {
    match phase {
        Phase::SoftState => "soft_state",
        other => other.name(),
    }
}
