//! What servers told of their work lately: rates are differences of two heartbeats. Soft: a restart begins anew.

use slice_metrics::BOUNDS_NS;
use slice_proto::control::pb;
use slice_proto::ids::ServerId;
use std::collections::{BTreeMap, VecDeque};

/// Most servers and µproxies that are remembered (a few KiB each).
const MAX_SERVERS: usize = 1024;
/// Heartbeats that rates are taken over: seconds.
const WINDOW: usize = 5;
/// Rates that are kept for the picture: two minutes.
const KEPT: usize = 120;
/// Bounds on what one heartbeat may bring.
const MAX_ASKED: usize = 1024;
const MAX_CLIENTS: usize = 64;

const BUCKETS: usize = BOUNDS_NS.len() + 1;

/// Every server's history.
#[derive(Debug, Default)]
pub struct Activities(BTreeMap<ServerId, History>);

/// One server's.
#[derive(Debug, Default)]
pub struct History {
    points: VecDeque<Point>,
    ops: VecDeque<f32>,
    /// Since when it has had something unsettled, ns since 1970.
    unsettled_since: Option<u64>,
}

#[derive(Debug)]
struct Point {
    at_ns: u64,
    activity: pb::Activity,
    latency: [u64; BUCKETS],
}

/// What a server did in the last seconds, and does.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Now {
    /// As `slice status` has it.
    pub rates: pb::Rates,
    /// Errors a second that no request should meet.
    pub faults: f64,
    /// Connections.
    pub connections: u64,
    /// Bytes of memory.
    pub resident_bytes: u64,
    /// Calls a second of each server.
    pub asked: Vec<(ServerId, f64)>,
    /// Clients.
    pub clients: Vec<pb::Client>,
    /// Operations a second over the last minutes, oldest first.
    pub history: Vec<f32>,
    /// How long it has had something unsettled, ms.
    pub unsettled_ms: u64,
}

impl Activities {
    /// A heartbeat came from a server that is known.
    pub fn beat(&mut self, server: ServerId, activity: pb::Activity, unsettled: u64, now_ns: u64) {
        if self.0.len() >= MAX_SERVERS && !self.0.contains_key(&server) {
            // Whoever was silent longest makes room.
            let silent =
                self.0.iter().min_by_key(|(_, h)| h.points.back().map(|p| p.at_ns)).map(|(id, _)| *id);
            silent.map(|id| self.0.remove(&id));
        }
        self.0.entry(server).or_default().beat(activity, unsettled, now_ns);
    }

    /// What a server does, once it has told twice.
    #[must_use]
    pub fn now(&self, server: ServerId, now_ns: u64) -> Option<Now> {
        self.0.get(&server)?.now(now_ns)
    }
}

impl History {
    fn beat(&mut self, mut activity: pb::Activity, unsettled: u64, now_ns: u64) {
        activity.asked.truncate(MAX_ASKED);
        activity.clients.truncate(MAX_CLIENTS);
        let mut latency = [0; BUCKETS];
        latency.iter_mut().zip(&activity.latency).for_each(|(mine, told)| *mine = *told);
        // A process that began anew counts from nothing.
        let calls = |l: &[u64; BUCKETS]| l.iter().sum::<u64>();
        if self
            .points
            .back()
            .is_some_and(|last| calls(&last.latency) > calls(&latency) || last.at_ns >= now_ns)
        {
            self.points.clear();
        }
        self.points.push_back(Point { at_ns: now_ns, activity, latency });
        if self.points.len() > WINDOW + 1 {
            self.points.pop_front();
        }
        if let Some(now) = self.rates() {
            self.ops.push_back(now.ops as f32);
            if self.ops.len() > KEPT {
                self.ops.pop_front();
            }
        }
        self.unsettled_since = if unsettled == 0 { None } else { self.unsettled_since.or(Some(now_ns)) };
    }

    fn ends(&self) -> Option<(&Point, &Point, f64)> {
        let (first, last) = (self.points.front()?, self.points.back()?);
        let seconds = last.at_ns.checked_sub(first.at_ns).filter(|ns| *ns > 0)? as f64 / 1e9;
        Some((first, last, seconds))
    }

    fn rates(&self) -> Option<pb::Rates> {
        let (first, last, seconds) = self.ends()?;
        let mut buckets = last.latency;
        buckets.iter_mut().zip(&first.latency).for_each(|(n, before)| *n = n.saturating_sub(*before));
        let per_second = |of: fn(&pb::Activity) -> u64| {
            of(&last.activity).saturating_sub(of(&first.activity)) as f64 / seconds
        };
        Some(pb::Rates {
            ops: buckets.iter().sum::<u64>() as f64 / seconds,
            errors: per_second(|a| a.errors),
            p50: quantile(&buckets, 0.5),
            p99: quantile(&buckets, 0.99),
            cpu: per_second(|a| a.cpu_ns) / 1e9,
        })
    }

    fn now(&self, now_ns: u64) -> Option<Now> {
        let rates = self.rates()?;
        let (first, last, seconds) = self.ends()?;
        let before: BTreeMap<u64, u64> = first.activity.asked.iter().map(|a| (a.server, a.calls)).collect();
        let asked = last.activity.asked.iter().map(|a| {
            let calls = a.calls.saturating_sub(before.get(&a.server).copied().unwrap_or(0));
            (ServerId(a.server), calls as f64 / seconds)
        });
        let faults = last.activity.faults.saturating_sub(first.activity.faults) as f64 / seconds;
        Some(Now {
            rates,
            faults,
            connections: last.activity.connections,
            resident_bytes: last.activity.resident_bytes,
            asked: asked.collect(),
            clients: last.activity.clients.clone(),
            history: self.ops.iter().copied().collect(),
            unsettled_ms: self.unsettled_since.map_or(0, |since| now_ns.saturating_sub(since) / 1_000_000),
        })
    }
}

/// The value below which this part of all lies, in seconds, taken to be even within its bucket; 0 if there are none.
fn quantile(buckets: &[u64; BUCKETS], part: f64) -> f64 {
    let all: u64 = buckets.iter().sum();
    let wanted = all as f64 * part;
    let (mut seen, mut below) = (0.0, 0.0);
    for (n, bound) in buckets.iter().zip(BOUNDS_NS.iter().map(|ns| *ns as f64).chain([f64::INFINITY])) {
        let n = *n as f64;
        if n > 0.0 && seen + n >= wanted {
            // Of what is above all bounds only the last bound is known.
            let width = if bound.is_finite() { bound - below } else { 0.0 };
            return (below + width * ((wanted - seen) / n)) / 1e9;
        }
        (seen, below) = (seen + n, if bound.is_finite() { bound } else { below });
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn activity(calls: u64) -> pb::Activity {
        // All between 50 and 100 µs.
        let latency = BOUNDS_NS.iter().map(|b| if *b == 100_000 { calls } else { 0 }).chain([0]).collect();
        let asked = vec![pb::Asked { server: 7, calls: calls / 2 }];
        pb::Activity { latency, asked, cpu_ns: calls * 1000, ..pb::Activity::default() }
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let mut all = Activities::default();
        let id = ServerId(1);
        for second in 1..=20 {
            all.beat(id, activity(second * 100), 0, second * SECOND);
        }
        let now = all.now(id, 20 * SECOND).unwrap();
        assert!((now.rates.ops - 100.0).abs() < 1e-9 && (now.rates.cpu - 1e-4).abs() < 1e-9, "{now:?}");
        assert!((now.rates.p50 - 75e-6).abs() < 1e-9, "{now:?}");
        assert_eq!((now.asked[0].0, now.asked[0].1.round()), (ServerId(7), 50.0));
        assert_eq!(now.history.len(), 19);
        // It restarts: nothing is said until it has told twice.
        all.beat(id, activity(5), 3, 21 * SECOND);
        assert_eq!(all.now(id, 21 * SECOND), None);
        all.beat(id, activity(10), 3, 22 * SECOND);
        let now = all.now(id, 23 * SECOND).unwrap();
        assert_eq!((now.rates.ops, now.unsettled_ms), (5.0, 2000));
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut all = Activities::default();
        for server in 0..2 * MAX_SERVERS as u64 {
            let asked = vec![pb::Asked::default(); 2 * MAX_ASKED];
            let long = pb::Activity { latency: vec![1; 1000], asked, ..pb::Activity::default() };
            all.beat(ServerId(server), long, 0, server + 1);
        }
        assert_eq!(all.0.len(), MAX_SERVERS);
        assert!(all.0.values().all(|h| h.points.iter().all(|p| p.activity.asked.len() <= MAX_ASKED)));
    }

    #[test]
    fn quantiles_are_within_their_bucket() {
        let mut buckets = [0; BUCKETS];
        assert!(quantile(&buckets, 0.5).abs() < 1e-12);
        buckets[BUCKETS - 1] = 10;
        assert!((quantile(&buckets, 0.99) - 10.0).abs() < 1e-9);
    }
}
