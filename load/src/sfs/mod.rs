//! The SPECsfs-like workload: the SFS 3.0 NFSv3 mix, open loop, at evenly spaced loads up to a peak.
//!
//! ```text
//! schedule ──due──▶ draw (mix) ──▶ a task a request ──▶ connections in turn ──▶ server
//!   pure            pure              │ holds its file: shared to read, alone to change
//!                                     ◀── reply: status, sizes, contents checked; latency from when it was due
//! ```
//!
//! The set of files grows with the offered load, and so does the tenth of it that is accessed; neither depends on the number of
//! connections. A READ or WRITE of several blocks is one call.

pub mod files;
mod issue;
pub mod mix;
pub mod schedule;
mod set;

use crate::clock::Clock;
use crate::result::{Figures, LoadPoint, Mistakes, ServerCpu};
use crate::servers::Watched;
use crate::site::{Site, Target};
use crate::tally::{Latencies, Tally, lines};
use crate::{Error, Stop, cpu, progress};
use indicatif::ProgressBar;
use issue::World;
use mix::Request;
use rand::SeedableRng;
use rand::rngs::StdRng;
use schedule::{Arrivals, Next, Probe, load_points, next_probe, overall_response_time};
use set::Set;
use slice_proto::nfs3::Proc3;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Requests outstanding at which the next ones wait here: the server is hopelessly behind, and memory is bounded. Their
/// latency counts from when they were due all the same.
const MAX_OUTSTANDING: usize = 50_000;
/// Longest wait for what is outstanding at the end of a load.
const DRAIN: Duration = Duration::from_secs(60);
/// Wrong replies after which going on tells nothing more.
const MAX_MISTAKES: u64 = 1_000;
/// Share of the offered load that a server delivers which keeps up.
const KEEPS_UP: f64 = 0.95;
/// Mean latency above which a server does not keep up, in µs: the bound of SFS is 40 ms.
const KEEPS_UP_US: f64 = 40_000.0;
/// How long a load is tried in the search of the peak.
const PROBE_WARMUP: Duration = Duration::from_millis(500);
const PROBE_MEASURE: Duration = Duration::from_millis(1500);
/// Load for whose set of files the peak is searched.
const PROBE_SET: f64 = 500.0;

/// What to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Seed of files and requests.
    pub seed: u64,
    /// Connections.
    pub conns: usize,
    /// Loads.
    pub points: u32,
    /// The highest load, in operations a second; searched if not given.
    pub peak: Option<f64>,
    /// MiB of files for each operation a second.
    pub mib_per_op: f64,
    /// Time before measuring, at each load.
    pub warmup: Duration,
    /// Time of measuring, at each load.
    pub measure: Duration,
    /// Whether the files stay.
    pub keep: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The figures.
    pub figures: Figures,
    /// Wrong replies.
    pub mistakes: Mistakes,
    /// Whether it came to its end.
    pub complete: bool,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// Those that leave no figures at all: no connection, no mount, no files.
pub async fn run(config: &Config, target: &Target, servers: &Watched, stop: &Stop) -> Result<Outcome, Error> {
    let name = format!("slice-load-sfs-{:x}-{:x}", config.seed, std::process::id());
    let site = Site::open(target, config.conns, name.clone()).await?;
    let info = site.client()?.fsinfo(&site.dir).await?;
    let info = crate::client::must(Proc3::Fsinfo, info)?;
    let world = Rc::new(World {
        set: Rc::new(Set::new(Rc::clone(&site), config.seed)),
        tally: Tally::default(),
        rtmax: info.rtmax.max(1),
        wtmax: info.wtmax.max(1),
    });
    let mut runner =
        Runner { config, servers, stop, world, clock: Clock::new()?, notes: Vec::new(), rounds: 0 };
    let points = runner.all().await;
    let Runner { world, mut notes, .. } = runner;
    let (points, failure) = points;
    if let Some(error) = &failure {
        notes.push(format!("It ended early: {error}."));
    }
    let complete = failure.is_none() && points.len() == config.points as usize;
    if stop.asked() {
        notes.push("It was stopped before its end.".into());
    }
    if config.keep || !complete {
        notes.push(format!("Its files stay in {name} in the export."));
    } else if let Err(error) = site.clear(stop).await {
        world.tally.wrong(Proc3::Remove, format!("clearing: {error}"));
    }
    let curve: Vec<_> = points.iter().map(|p| (p.delivered, p.latency.mean_us / 1e3)).collect();
    let figures = Figures::Sfs {
        peak: points.iter().map(|p| p.delivered).reduce(f64::max),
        ort_ms: overall_response_time(&curve),
        points,
    };
    Ok(Outcome { figures, mistakes: world.tally.wrongs(), complete, notes })
}

struct Runner<'a> {
    config: &'a Config,
    servers: &'a Watched,
    stop: &'a Stop,
    world: Rc<World>,
    clock: Clock,
    notes: Vec<String>,
    /// Loads so far: each draws other requests.
    rounds: u64,
}

/// Requests that have left and are not answered.
#[derive(Debug, Default)]
struct Outstanding {
    count: Cell<usize>,
    fewer: Notify,
}

/// Counts one outstanding request for as long as it lives.
struct One(Rc<Outstanding>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.fewer.notify_one();
    }
}

impl Runner<'_> {
    /// All loads, and why it ended before the last, if it did.
    async fn all(&mut self) -> (Vec<LoadPoint>, Option<Error>) {
        let mut points = Vec::new();
        let peak = match self.config.peak {
            Some(peak) => peak,
            None => match self.search().await {
                Ok(Some(peak)) => peak,
                Ok(None) => return (points, None),
                Err(error) => return (points, Some(error)),
            },
        };
        for (n, offered) in load_points(peak, self.config.points).into_iter().enumerate() {
            let what = format!("load {} of {}, {offered:.0} op/s", n + 1, self.config.points);
            match self.load(offered, &what, (self.config.warmup, self.config.measure), offered).await {
                Ok(Some(point)) => points.push(point),
                Ok(None) => break,
                Err(error) => return (points, Some(error)),
            }
        }
        (points, None)
    }

    /// The highest load that the server keeps up with, roughly; none if a stop was asked for.
    async fn search(&mut self) -> Result<Option<f64>, Error> {
        let mut tried = Vec::new();
        loop {
            match next_probe(&tried) {
                Next::Peak(peak) => {
                    self.notes.push(format!(
                        "The peak was searched: {peak:.0} op/s, after {} loads of {:.1} s with the files of {PROBE_SET} op/s.",
                        tried.len(),
                        PROBE_MEASURE.as_secs_f64()
                    ));
                    return Ok(Some(peak));
                }
                Next::Try(offered) => {
                    let what = format!("searching the peak, {offered:.0} op/s");
                    let times = (PROBE_WARMUP, PROBE_MEASURE);
                    let Some(point) = self.load(offered, &what, times, PROBE_SET).await? else {
                        return Ok(None);
                    };
                    let kept_up =
                        point.delivered >= KEEPS_UP * offered && point.latency.mean_us <= KEEPS_UP_US;
                    tried.push(Probe { offered, kept_up });
                }
            }
        }
    }

    /// One load; none if a stop was asked for.
    async fn load(
        &mut self,
        offered: f64,
        what: &str,
        (warmup, measure): (Duration, Duration),
        set_for: f64,
    ) -> Result<Option<LoadPoint>, Error> {
        let world = Rc::clone(&self.world);
        let kib = files::dataset_kib(set_for, self.config.mib_per_op);
        let bar = progress::kib(&format!("{what}: files"));
        let made = world.set.extend(kib, self.stop, &bar).await;
        bar.finish_and_clear();
        if !made? {
            return Ok(None);
        }
        self.rounds += 1;
        let bar = progress::time(what, warmup + measure);
        let measured = self.offer(offered, (warmup, measure), &bar).await;
        bar.finish_and_clear();
        let Some(measured) = measured? else { return Ok(None) };
        let (procs, all) = lines(&measured.by_proc, measured.seconds);
        let calls = all.calls() as f64;
        Ok(Some(LoadPoint {
            offered,
            delivered: calls / measured.seconds,
            latency: all.figures(),
            late_p99_us: measured.late.figures().p99_us,
            seconds: measured.seconds,
            files: world.set.count.get(),
            accessed: world.set.files.borrow().len() as u64,
            mib: world.set.kib.get() as f64 / 1024.0,
            procs,
            cpu: measured.servers,
            load_us_per_op: measured.own.as_secs_f64() * 1e6 / calls.max(1.0),
        }))
    }

    /// Sends requests as they are due; none if a stop was asked for.
    async fn offer(
        &self,
        offered: f64,
        (warmup, measure): (Duration, Duration),
        bar: &ProgressBar,
    ) -> Result<Option<Measured>, Error> {
        let (world, whole) = (&self.world, warmup + measure);
        let seed = self.config.seed.wrapping_add(self.rounds << 32);
        let mut rng = StdRng::seed_from_u64(seed);
        let outstanding = Rc::new(Outstanding::default());
        let mut late = Latencies::default();
        let start = Instant::now();
        let (mut shown, mut done) = (start, world.tally.done());
        let mut before = None;
        for at in Arrivals::new(offered, !seed) {
            let due = start + at.min(whole);
            tokio::select! {
                waited = self.clock.until(due) => waited?,
                () = self.stop.wait() => {}
            }
            outstanding.room(start + whole, self.stop).await;
            let now = Instant::now();
            if before.is_none() && now - start >= warmup {
                before = Some((now, cpu::own()?, self.servers.used()));
                world.tally.begin();
            }
            if self.stop.asked() || now - start >= whole || world.tally.mistakes() >= MAX_MISTAKES {
                break;
            }
            if before.is_some() {
                late.record(now - due);
            }
            if now - shown > progress::EVERY {
                let rate = (world.tally.done() - done) as f64 / (now - shown).as_secs_f64();
                (shown, done) = (now, world.tally.done());
                bar.set_position(u64::try_from((now - start).as_millis()).unwrap_or(u64::MAX));
                let (waiting, wrong) = (outstanding.count.get(), world.tally.mistakes());
                bar.set_message(format!("{rate:.0}/s answered, {waiting} outstanding, {wrong} wrong"));
            }
            outstanding.count.set(outstanding.count.get() + 1);
            let (world, one, request) =
                (Rc::clone(world), One(Rc::clone(&outstanding)), Request::draw(&mut rng));
            tokio::task::spawn_local(async move {
                world.issue(request, due).await;
                drop(one);
            });
        }
        let Some((began, own_before, cpu_before)) = before else {
            return self.too_wrong().map_or(Ok(None), Err);
        };
        let (seconds, own) = (began.elapsed().as_secs_f64(), cpu::own()?.saturating_sub(own_before));
        let by_proc = world.tally.end();
        let calls: u64 = by_proc.values().map(Latencies::calls).sum();
        let servers = self.servers.since(cpu_before.as_ref(), calls as f64);
        if self.stop.asked() {
            return Ok(None);
        }
        if tokio::time::timeout(DRAIN, outstanding.none()).await.is_err() {
            let left = outstanding.count.get();
            world.tally.wrong(
                Proc3::Null,
                format!("{left} requests had no reply {} s after their load", DRAIN.as_secs()),
            );
            return Err(Error::Timeout(DRAIN.as_secs()));
        }
        match self.too_wrong() {
            Some(error) => Err(error),
            None => Ok(Some(Measured { seconds, by_proc, late, servers, own })),
        }
    }

    fn too_wrong(&self) -> Option<Error> {
        (self.world.tally.mistakes() >= MAX_MISTAKES)
            .then_some(Error::Protocol("there were too many wrong replies"))
    }
}

/// What one load gave.
struct Measured {
    seconds: f64,
    by_proc: BTreeMap<Proc3, Latencies>,
    late: Latencies,
    servers: Vec<ServerCpu>,
    own: Duration,
}

impl Outstanding {
    /// Resolves when another may be sent, at `until`, or at a stop.
    async fn room(&self, until: Instant, stop: &Stop) {
        while self.count.get() >= MAX_OUTSTANDING && !stop.asked() {
            tokio::select! {
                () = self.fewer.notified() => {}
                () = stop.wait() => {}
                () = tokio::time::sleep_until(until.into()) => return,
            }
        }
    }

    /// Resolves when all are answered.
    async fn none(&self) {
        while self.count.get() > 0 {
            self.fewer.notified().await;
        }
    }
}
