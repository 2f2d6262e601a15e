//! Intentions whose owners are gone are taken over when they are as old as is configured: on a clock that is tokio's, which
//! stands while anybody works and leaps to what is waited for, so that every time is exact.

use super::{Notes, SERVERS, ask, config, format, intent, unsettled};
use crate::ensemble::Registration;
use crate::intents::RETRY_NS;
use crate::{Coordinator, CoordinatorConfig};
use slice_proto::ids::{Role, ServerId};
use slice_proto::peer::PeerProc;
use slice_proto::peer::hello::{MAX_WIRE_VERSION, MIN_WIRE_VERSION};
use slice_proto::peer::intent::{IntentKind, LogRes};
use slice_proto::table::ServerEntry;
use slice_rpc::clock::Clock;
use slice_rpc::{Directory, Target};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const AGE: Duration = Duration::from_secs(30);
/// A timer of tokio's may fire a millisecond late, and the coordinator sleeps one at least.
const SLACK: Duration = Duration::from_millis(5);

/// Tells tokio's time, and a time of day that is ahead of it.
struct Virtual(Instant, AtomicU64);

impl Clock for Virtual {
    fn now_ns(&self) -> u64 {
        self.monotonic_ns() + self.1.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// A coordinator whose sites are dealt, with nobody to be reached yet.
async fn open(dir: &Path, clock: &Arc<Virtual>) -> (Arc<Coordinator>, Directory) {
    let (tx, _) = slice_rpc::tables::tables();
    let directory = Directory::new(None);
    let aged = CoordinatorConfig { take_over_after: AGE, ..config(dir) };
    let c = Coordinator::open(aged, tx, directory.clone(), clock.clone()).await.unwrap();
    for (role, id) in SERVERS {
        let entry = ServerEntry { role, address: format!("127.0.0.1:{id}") };
        let r = Registration {
            server: ServerId(id),
            entry,
            wire: (MIN_WIRE_VERSION, MAX_WIRE_VERSION),
            fresh: true,
            stamped: Vec::new(),
        };
        c.register(&r).await.unwrap();
    }
    for (role, id) in SERVERS {
        let sites: Vec<_> = c.ensemble().table.owned(role, ServerId(id)).collect();
        c.adopted(ServerId(id), &sites).await.unwrap();
    }
    assert!(c.ensemble().published().is_some());
    (c, directory)
}

fn show_data(directory: &Directory, notes: &Arc<Notes>) {
    for (role, id) in SERVERS {
        if role != Role::Dir {
            directory.set(ServerId(id), Target::InProcess(notes.clone()));
        }
    }
}

/// Logs an intention while the clock stands: the log has a thread of its own, and tokio would take the wait for it for idleness.
/// It does not leap while a blocking task runs.
async fn log(c: &Coordinator, kind: IntentKind, file: u64) {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let stands = tokio::task::spawn_blocking(move || wait.recv().is_err());
    let res: LogRes = ask(c, PeerProc::IntentLog, &intent(kind, file)).await;
    assert_eq!(res.status, 0);
    drop(done);
    assert!(stands.await.unwrap());
}

/// Waits until nothing is intended any more; the time that it took.
async fn rolled(c: &Coordinator, since: Instant) -> Duration {
    while unsettled(c).await > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    since.elapsed()
}

#[test]
fn an_intention_is_taken_over_at_its_age_and_no_sooner() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    run(async {
        let clock = Arc::new(Virtual(Instant::now(), AtomicU64::new(0)));
        let (c, directory) = open(dir.path(), &clock).await;
        let notes = Arc::new(Notes::default());
        show_data(&directory, &notes);
        let running = tokio::task::spawn_local(Arc::clone(&c).run());
        let logged = Instant::now();
        log(&c, IntentKind::Remove, 7).await;
        let took = rolled(&c, logged).await;
        assert!(took >= AGE && took <= AGE + SLACK, "{took:?}");
        assert_eq!(notes.purged.lock().len(), 3);

        // A data server that is away then is asked again, and again, until it is back.
        let away = Instant::now();
        SERVERS.iter().for_each(|(_, id)| directory.remove(ServerId(*id)));
        log(&c, IntentKind::Truncate, 8).await;
        let back = AGE + Duration::from_nanos(RETRY_NS * 5 / 2);
        tokio::time::sleep_until(away + back).await;
        assert_eq!((unsettled(&c).await, notes.truncated.lock().len()), (1, 0));
        show_data(&directory, &notes);
        let took = rolled(&c, away).await;
        let next = AGE + Duration::from_nanos(RETRY_NS * 3);
        assert!(took >= back && took <= next + SLACK * 4, "{took:?}");
        c.shutdown().await;
        running.await.unwrap();
    });
}

/// Whoever sets the machine's clock makes none older, and none younger.
#[test]
fn a_leap_of_the_time_of_day_ages_nothing() {
    const DAY_NS: u64 = 24 * 3600 * 1_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    run(async {
        let clock = Arc::new(Virtual(Instant::now(), AtomicU64::new(DAY_NS)));
        let (c, directory) = open(dir.path(), &clock).await;
        let notes = Arc::new(Notes::default());
        show_data(&directory, &notes);
        let running = tokio::task::spawn_local(Arc::clone(&c).run());
        for leap in [2 * DAY_NS, 0] {
            let logged = Instant::now();
            log(&c, IntentKind::Remove, 7).await;
            clock.1.store(leap, Ordering::SeqCst);
            let took = rolled(&c, logged).await;
            assert!(took >= AGE && took <= AGE + SLACK, "{took:?}");
        }
        c.shutdown().await;
        running.await.unwrap();
    });
}

/// A restart makes none younger, and what has its age meanwhile is taken over at once.
#[test]
fn what_has_aged_while_the_coordinator_was_down_is_taken_over_at_once() {
    let dir = tempfile::tempdir().unwrap();
    format(dir.path());
    run(async {
        let clock = Arc::new(Virtual(Instant::now(), AtomicU64::new(0)));
        let (c, _) = open(dir.path(), &clock).await;
        log(&c, IntentKind::Remove, 7).await;
        c.shutdown().await;
        drop(c);
        tokio::time::sleep(AGE).await;
        let (tx, _) = slice_rpc::tables::tables();
        let directory = Directory::new(None);
        let notes = Arc::new(Notes::default());
        show_data(&directory, &notes);
        let aged = CoordinatorConfig { take_over_after: AGE, ..config(dir.path()) };
        let c = Coordinator::open(aged, tx, directory, clock.clone()).await.unwrap();
        assert_eq!(unsettled(&c).await, 1);
        let opened = Instant::now();
        let running = tokio::task::spawn_local(Arc::clone(&c).run());
        let took = rolled(&c, opened).await;
        assert!(took <= SLACK, "{took:?}");
        assert_eq!(notes.purged.lock().len(), 3);
        c.shutdown().await;
        running.await.unwrap();
    });
}
