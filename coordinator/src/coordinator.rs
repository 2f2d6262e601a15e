//! The coordinator: what its two faces, ONC RPC (intentions) and gRPC (control), share, and its life from open to
//! shutdown.

use crate::config::{CoordinatorConfig, FORMAT};
use crate::ensemble::{Ensemble, Plan, Refusal, Registration};
use crate::error::{Error, Result};
use crate::heard::Heard;
use crate::intents::{Command, Entry, Event, Intents};
use crate::log::{Log, Place, Recovered};
use crate::page::alarms;
use crate::page::history::Activities;
use crate::stored;
use parking_lot::Mutex;
use slice_metrics::Samples;
use slice_proto::control::auth::Nonces;
use slice_proto::control::pb;
use slice_proto::ids::{IntentionId, Role, ServerId, Site};
use slice_proto::secret::Identity;
use slice_proto::stats::ServerStats;
use slice_rpc::Directory;
use slice_rpc::clock::{Clock, SharedClock, Steady};
use slice_rpc::tables::TablesSender;
use slice_store::{Batch, Durable, Store, StoreStamp};
use slice_system::{Files, Kernel, System};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The coordinator.
pub struct Coordinator {
    pub(crate) identity: Identity,
    pub(crate) server: ServerId,
    /// For proofs, which the clocks of two machines must agree on. For nothing else.
    pub(crate) clock: SharedClock,
    /// What has lasted how long.
    pub(crate) steady: Steady,
    pub(crate) directory: Directory,
    pub(crate) heard: Mutex<Heard>,
    pub(crate) activities: Mutex<Activities>,
    pub(crate) nonces: Mutex<Nonces>,
    pub(crate) calls: Calls,
    data: PathBuf,
    store: Store,
    /// The newest state, durable or about to be. Changes are numbered, so that an older one is never told last.
    state: Mutex<(u64, Arc<Ensemble>)>,
    /// The newest state that is durable: what others are told.
    durable: watch::Sender<(u64, Arc<Ensemble>)>,
    tables: TablesSender,
    log: Log,
    intents: Mutex<Intents>,
    take_over_ns: u64,
    /// An intention is open where there was none: the take-over must look at the clock again.
    pub(crate) first_intent: Notify,
    stop: watch::Sender<bool>,
}

/// Bytes of a segment of a simulated log.
const SMALL_SEGMENT_BYTES: u64 = 8 << 10;

/// Calls answered since start.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub log: AtomicU64,
    pub complete: AtomicU64,
    pub taken_over: AtomicU64,
    pub control: AtomicU64,
}

fn log_dir(data: &Path) -> PathBuf {
    data.join("log")
}

/// Where the intention log lies.
fn place(system: &System, data: &Path, config: &CoordinatorConfig) -> Place {
    Place::on(system, log_dir(data), config.identity.ensemble)
}

/// The same in a simulation, where segments are so small that they are filled and released.
fn simulated(system: &System, config: &CoordinatorConfig) -> Place {
    Place { segment_bytes: SMALL_SEGMENT_BYTES, ..place(system, &config.data, config) }
}

impl Coordinator {
    /// Makes the coordinator of a new ensemble in the directory of `config`, all or nothing: it is built aside and
    /// renamed. Blocks.
    ///
    /// # Errors
    /// An [`Error`] if the plan cannot be carried out, or if there is a coordinator already: nothing is overwritten.
    pub fn format(config: &CoordinatorConfig, plan: Plan) -> Result<()> {
        let ensemble = Ensemble::new(plan, config.server, config.address.clone())?;
        let data = &config.data;
        match slice_store::read_stamp(data) {
            Err(slice_store::Error::Absent { .. }) => {}
            Ok((found, _)) => {
                return Err(slice_store::Error::Exists { dir: data.clone(), stamp: found.to_string() }.into());
            }
            Err(e) => return Err(e.into()),
        }
        let aside = data.join("making");
        // What a format left that did not come to its end.
        for left in [&aside, &log_dir(data)] {
            match std::fs::remove_dir_all(left) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", left)(e));
                }
                _ => {}
            }
        }
        Kernel.make_durable_dirs(data).map_err(Error::io("make", data))?;
        std::fs::create_dir_all(&aside).map_err(Error::io("make", &aside))?;
        Log::format(&place(&System::kernel(), &aside, config))?;
        Store::format(&aside, config.engine, Self::stamp(config))?;
        let store = Store::open(&aside, config.engine, Self::stamp(config))?;
        let mut batch = Batch::new();
        batch.put(stored::KEY, stored::encode(&ensemble));
        store.commit(batch)?.wait_blocking()?;
        drop(store);
        // The store comes last: its stamp is what says that there is a coordinator.
        for part in ["log", "store"] {
            let from = aside.join(part);
            std::fs::rename(&from, data.join(part)).map_err(Error::io("rename", &from))?;
            Kernel.sync_dir(data).map_err(Error::io("fsync", data))?;
        }
        std::fs::remove_dir_all(&aside).map_err(Error::io("remove", &aside))
    }

    /// Whose store it is.
    #[must_use]
    pub fn stamp(config: &CoordinatorConfig) -> StoreStamp {
        StoreStamp {
            ensemble: config.identity.ensemble,
            server: config.server,
            role: Role::Coordinator,
            format: FORMAT,
        }
    }

    /// Makes the coordinator of an ensemble whose servers are known already, on a store and a system of the caller's: for
    /// simulations. Blocks.
    ///
    /// # Errors
    /// An [`Error`].
    pub fn format_on(
        store: &Store,
        system: &System,
        config: &CoordinatorConfig,
        ensemble: &Ensemble,
    ) -> Result<()> {
        Log::format(&simulated(system, config))?;
        let mut batch = Batch::new();
        batch.put(stored::KEY, stored::encode(ensemble));
        store.submit(batch)?;
        Ok(store.flush()?)
    }

    /// Opens the coordinator in the directory of `config`. Tables are published to `tables` too, for this process.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with the directory.
    pub async fn open(
        config: CoordinatorConfig,
        tables: TablesSender,
        directory: Directory,
        clock: SharedClock,
    ) -> Result<Arc<Self>> {
        let system = System::kernel();
        let pool = system.pool.clone();
        let open = move || {
            let store = Store::open(&config.data, config.engine, Self::stamp(&config))?;
            let log = Log::open(place(&system, &config.data, &config));
            Self::open_blocking(store, log, config, tables, directory, clock)
        };
        let this = Arc::new(pool.run(open).await.map_err(|_| Error::Closing)??);
        this.carry_forward().await?;
        Ok(this)
    }

    /// The same on a store and a system of the caller's, with small segments and without a thread: for simulations. `wanted` is
    /// told when the log has work, and has then to see to it that [`turn`](Self::turn) is called, once for each time that it
    /// was told. [`carry_forward`](Self::carry_forward) is to follow, which waits for the log.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with what is on them.
    pub async fn open_on(
        store: Store,
        config: CoordinatorConfig,
        tables: TablesSender,
        directory: Directory,
        clock: SharedClock,
        system: System,
        wanted: impl Fn() + Send + Sync + 'static,
    ) -> Result<Arc<Self>> {
        let pool = system.pool.clone();
        let open = move || {
            let log = Log::open_on(simulated(&system, &config), wanted);
            Self::open_blocking(store, log, config, tables, directory, clock)
        };
        Ok(Arc::new(pool.run(open).await.map_err(|_| Error::Closing)??))
    }

    /// Takes the turn that was wanted ([`open_on`](Self::open_on)).
    pub fn turn(&self) {
        self.log.turn();
    }

    /// Opening's last step: everything open stands in the log's newest segment from now on, and the older ones come free.
    ///
    /// # Errors
    /// The log's.
    pub async fn carry_forward(&self) -> Result<()> {
        let carried = self.intent(|next| Event::Carry { below: next, next })?;
        self.log.wait(carried.last_record).await?;
        self.release();
        Ok(())
    }

    fn open_blocking(
        store: Store,
        log: Result<(Log, Vec<Recovered>)>,
        config: CoordinatorConfig,
        tables: TablesSender,
        directory: Directory,
        clock: SharedClock,
    ) -> Result<Self> {
        let bytes = store.get(stored::KEY)?;
        let bytes = bytes.ok_or(Error::BadRecord { what: "the ensemble's record", whose: "store" })?;
        let mut ensemble = stored::decode(&bytes)?;
        if let Some(moved) = ensemble.moved(config.server, &config.address) {
            let mut batch = Batch::new();
            batch.put(stored::KEY, stored::encode(&moved));
            store.commit(batch)?.wait_blocking()?;
            ensemble = moved;
        }
        let (log, recovered) = log?;
        let steady = Steady::new(Arc::clone(&clock));
        let mut intents = Intents::default();
        for record in recovered {
            intents.recover(record.sequence, Entry::decode(&record.payload)?, steady.now_ns());
        }
        if let Some(table) = ensemble.published() {
            tables.publish(table.clone());
        }
        let ensemble = Arc::new(ensemble);
        Ok(Self {
            identity: config.identity,
            server: config.server,
            clock,
            directory,
            heard: Mutex::default(),
            activities: Mutex::default(),
            steady,
            nonces: Mutex::default(),
            calls: Calls::default(),
            data: config.data,
            store,
            state: Mutex::new((0, Arc::clone(&ensemble))),
            durable: watch::Sender::new((0, ensemble)),
            tables,
            log,
            intents: Mutex::new(intents),
            take_over_ns: nanos(config.take_over_after),
            first_intent: Notify::new(),
            stop: watch::Sender::new(false),
        })
    }

    // --- membership ---

    /// The newest durable state, and every later one.
    pub(crate) fn watch(&self) -> watch::Receiver<(u64, Arc<Ensemble>)> {
        self.durable.subscribe()
    }

    /// The newest durable state.
    pub(crate) fn ensemble(&self) -> Arc<Ensemble> {
        Arc::clone(&self.durable.borrow().1)
    }

    /// Lets a server in; durable when it returns.
    pub(crate) async fn register(&self, r: &Registration) -> std::result::Result<(), Denied> {
        self.change(|e| e.register(r)).await
    }

    /// Notes that a server has stamped its sites; durable when it returns.
    pub(crate) async fn adopted(&self, server: ServerId, sites: &[Site]) -> std::result::Result<(), Denied> {
        self.change(|e| e.adopted(server, sites)).await
    }

    /// Changes the state: in memory and order at once, told when durable.
    async fn change(
        &self,
        step: impl FnOnce(&Ensemble) -> std::result::Result<Option<Ensemble>, Refusal>,
    ) -> std::result::Result<(), Denied> {
        let (durable, news) = self.submit(step)?;
        durable.await.map_err(Error::from)?;
        let Some((number, next)) = news else { return Ok(()) };
        if let Some(table) = next.published() {
            self.tables.publish(table.clone());
        }
        self.durable.send_if_modified(|told| {
            let newer = number > told.0;
            if newer {
                *told = (number, next);
            }
            newer
        });
        Ok(())
    }

    /// Changes the state in memory; what is to be waited for, and told then.
    fn submit(
        &self,
        step: impl FnOnce(&Ensemble) -> std::result::Result<Option<Ensemble>, Refusal>,
    ) -> std::result::Result<(Durable, Option<News>), Denied> {
        let mut state = self.state.lock();
        let Some(next) = step(&state.1)? else {
            // What it already says may still be on its way to the disk.
            return Ok((self.store.wait(self.store.submitted()), None));
        };
        let mut batch = Batch::new();
        batch.put(stored::KEY, stored::encode(&next));
        let durable = self.store.commit(batch).map_err(Error::from)?;
        *state = (state.0 + 1, Arc::new(next));
        Ok((durable, Some((state.0, Arc::clone(&state.1)))))
    }

    // --- intentions ---

    /// Feeds an event, made from the log's next sequence, to the intentions, and appends what it asks for.
    pub(crate) fn intent(&self, event: impl FnOnce(u64) -> Event) -> Result<Outcome> {
        let mut intents = self.intents.lock();
        let next = self.log.next_sequence();
        let before = intents.open();
        let mut outcome = Outcome { last_record: next.saturating_sub(1), rest: Vec::new() };
        for command in intents.on(event(next), self.take_over_ns) {
            match command {
                Command::Append(entry) => outcome.last_record = self.log.append(entry.encode())?,
                other => outcome.rest.push(other),
            }
        }
        let first = before == 0 && intents.open() > 0;
        drop(intents);
        if first {
            self.first_intent.notify_one();
        }
        Ok(outcome)
    }

    /// Marks intentions complete: lazily, nobody waits for the log.
    pub(crate) fn complete(&self, ids: Vec<IntentionId>) -> Result<()> {
        self.intent(|_| Event::Complete(ids))?;
        self.tidy()
    }

    /// A take-over has come to its end.
    pub(crate) fn took_over(&self, id: IntentionId) -> Result<()> {
        self.intent(|_| Event::TookOver(id))?;
        self.tidy()
    }

    /// Frees log segments, and empties the oldest where there are too many.
    fn tidy(&self) -> Result<()> {
        if let Some(below) = self.log.crowded() {
            self.intent(|next| Event::Carry { below, next })?;
        }
        if self.log.segments() > 1 {
            self.release();
        }
        Ok(())
    }

    fn release(&self) {
        let intents = self.intents.lock();
        self.log.release(intents.first_record().unwrap_or_else(|| self.log.next_sequence()));
    }

    /// Resolves when the log is durable up to `record`.
    pub(crate) fn logged(&self, record: u64) -> impl Future<Output = Result<()>> + Send + use<> {
        self.log.wait(record)
    }

    /// When the take-over has something to do next, ns since 1970.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        self.intents.lock().next_due_ns()
    }

    /// Open intentions, and when the oldest was logged.
    pub(crate) fn open_intents(&self) -> (usize, Option<u64>) {
        let intents = self.intents.lock();
        (intents.open(), intents.oldest_ns())
    }

    // --- the program's side ---

    /// The coordinator's own figures.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let c = &self.calls;
        let ops = [
            ("INTENT_LOG", &c.log),
            ("INTENT_COMPLETE", &c.complete),
            ("taken over", &c.taken_over),
            ("control", &c.control),
        ];
        let (total, free) = crate::heard::file_system(&self.data).unwrap_or_default();
        let open = self.open_intents().0 as u64;
        ServerStats {
            ops: ops.into_iter().map(|(n, v)| (n.to_owned(), v.load(Ordering::Relaxed))).collect(),
            space_total: total,
            space_free: free,
            objects: open,
            sites: 0,
            unsettled: open,
        }
    }

    /// What the metrics endpoint shows.
    pub fn samples(&self, out: &mut Samples) {
        let (open, oldest_ns) = self.open_intents();
        let now_ns = self.steady.now_ns();
        let age_ns = |since: u64| now_ns.saturating_sub(since);
        let aged = self.intents.lock().older_than(now_ns.saturating_sub(self.take_over_ns));
        out.gauge("slice_intentions_open", "Intentions that are open.", &[], open as f64);
        out.gauge(
            "slice_intentions_aged",
            "Open intentions that are older than the take-over age.",
            &[],
            aged as f64,
        );
        out.gauge(
            "slice_intentions_oldest_age_seconds",
            "Age of the oldest open intention, 0 if none is open.",
            &[],
            oldest_ns.map_or(0.0, |ns| age_ns(ns) as f64 / 1e9),
        );
        let taken_over = self.calls.taken_over.load(Ordering::Relaxed) as f64;
        out.counter(
            "slice_intentions_taken_over_total",
            "Intentions that were rolled forward.",
            &[],
            taken_over,
        );
        let control = self.calls.control.load(Ordering::Relaxed) as f64;
        out.counter("slice_control_requests_total", "Requests to the control plane.", &[], control);
        let status = self.status();
        let heard = |s: &&pb::ServerStatus| s.heartbeat_age_ms.is_some_and(|ms| ms <= alarms::SILENT_MS);
        for role in [Role::Proxy, Role::Dir, Role::Small, Role::Block] {
            let number = pb::Role::from(role) as i32;
            let all: Vec<_> = status.servers.iter().filter(|s| s.role == number).collect();
            let own = [("of", role.name())];
            let help = "Servers and µproxies that the coordinator knows.";
            out.gauge("slice_members", help, &own, all.len() as f64);
            let help = "Of these, those that were heard in the last five seconds.";
            out.gauge("slice_members_heard", help, &own, all.into_iter().filter(heard).count() as f64);
        }
        let serving = f64::from(u8::from(status.phase == pb::Phase::Serving as i32));
        out.gauge("slice_serving", "Whether the routing table is published.", &[], serving);
        self.store.commits().samples("store", out);
    }

    /// Resolves when the coordinator is to stop.
    pub(crate) async fn stopped(&self) {
        // The sender is ours: the wait cannot fail.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// Ends the background work and the control plane. Everything acknowledged is durable already.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let last = self.log.next_sequence().saturating_sub(1);
        if let Err(error) = self.log.wait(last).await {
            // Only completions are lost, and those are made again by the take-over.
            tracing::error!(%error, "the intention log is not written to its end");
        }
    }
}

/// A new state and its number.
type News = (u64, Arc<Ensemble>);

/// What is left to be done after the log has been appended to.
pub(crate) struct Outcome {
    /// The last record appended, or the last there was.
    pub last_record: u64,
    /// Everything but appends.
    pub rest: Vec<Command>,
}

/// Why a change of membership is not made.
#[derive(Debug)]
pub(crate) enum Denied {
    /// It must not be.
    Refused(Refusal),
    /// It cannot be made durable.
    Failed(Error),
}

impl From<Refusal> for Denied {
    fn from(r: Refusal) -> Self {
        Self::Refused(r)
    }
}

impl From<Error> for Denied {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

pub(crate) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Coordinator({})", self.server)
    }
}
