//! Runs each operation once to see its messages, then once for each step and victim; prints what it did.

use super::client::Client;
use super::ensemble::{COORDINATOR, Ensemble, PROXY, name};
use super::names::Names;
use super::play::{Op, Play};
use super::verify::{again, verify};
use super::wire::{Kind, Step, Stopped, Trap, When};
use slice_proto::ids::ServerId;
use slice_proto::peer::PeerProc;
use slice_proto::table::NamePolicy;
use slice_tests::stock::Length;
use std::collections::{BTreeSet, VecDeque};
use std::fmt::{self, Write};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

/// Ensembles side by side: most of the time each waits for itself.
const LANES: usize = 6;
/// How often an operation is run to see its messages: what is sent in the background may be one message or two.
const LOOKS: usize = 3;
/// How often a message is waited for that does not come every time.
const TRIES: usize = 6;
/// An operation that takes so long hangs. No claim on speed.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// A line of the table.
#[derive(Debug, Clone, Copy)]
struct Job {
    hashed: bool,
    op: Op,
}

/// What came of it.
struct Row {
    job: Job,
    messages: usize,
    kills: usize,
    /// Messages that come only sometimes, and did not come again.
    seldom: Vec<Step>,
}

/// Who is killed, and when.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// As a message is stopped. `late`: the message arrives all the same, after its dead sender has been started again.
    At { trap: Trap, victim: ServerId, late: bool },
    /// Right before the client sends.
    Asked(ServerId),
    /// Right after the client has the reply.
    Answered(ServerId),
}

/// What a run has seen.
struct Seen {
    steps: Vec<Step>,
    /// Whether the message came at which somebody was to be killed.
    reached: bool,
}

/// One ensemble and what is needed to work with it.
struct Stage {
    e: Ensemble,
    names: Names,
    client: Client,
    runs: usize,
}

type Reply<'a> = Pin<Box<dyn Future<Output = Vec<u8>> + 'a>>;

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}", if self.hashed { "hash" } else { "mkdir" }, self.op)
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { trap: (step, when), victim, late } => {
                let late = if *late { ", which arrives late" } else { "" };
                write!(f, "{} dies {when:?} {step}{late}", name(*victim))
            }
            Self::Asked(victim) => write!(f, "{} dies as the client asks", name(*victim)),
            Self::Answered(victim) => write!(f, "{} dies as the client is answered", name(*victim)),
        }
    }
}

/// Messages that an operation takes at the very least, by docs/wire.md: the client's, the µproxy's, and for each server that
/// takes part what it must be asked. What may or may not come (whether all is durable, how things are) is not counted.
fn least(Job { hashed, op }: Job) -> usize {
    let (spread, near) = match op {
        // The client's call and the µproxy's.
        Op::Setattr => (2, 2),
        // A hold and its confirmation at the directory's home.
        Op::Create | Op::CreateExclusive | Op::Symlink | Op::Mknod => (4, 2),
        Op::Mkdir => (4, 4),
        // At the file's home besides.
        Op::Unlink => (5, 3),
        Op::Remove => (6, 3),
        Op::Rmdir | Op::Link => (6, 4),
        Op::Rename | Op::RenameOver => (8, 5),
        // The volume's rename right, and the way up.
        Op::RenameDir | Op::RenameDirOver => (9, 7),
        // INTENT_LOG, TRUNCATE or PURGE at three data servers, INTENT_COMPLETE.
        Op::Cut => (7, 7),
        Op::CreateOver | Op::RemoveLarge => (10, 7),
        Op::RenameOverLarge => (12, 7),
        // EXTEND.
        Op::Grow => (3, 3),
        Op::CreateSized => (5, 3),
        // RAISE_REACH, three parts, EXTEND; PUSH.
        Op::Write => (6, 6),
        Op::WriteSync => (7, 7),
        // COMMIT at three data servers, PUSH.
        Op::Commit => (5, 5),
        Op::SetattrWritten => (3, 3),
        // The coordinator's three, and the client's.
        Op::RemoveLeft | Op::CutLeft => (4, 4),
    };
    if hashed { spread } else { near }
}

/// Runs the whole table.
pub fn run() {
    let only = std::env::var("SLICE_STEPS").unwrap_or_default();
    let all = [true, false].into_iter().flat_map(|hashed| Op::ALL.map(|op| Job { hashed, op }));
    let jobs: VecDeque<Job> =
        all.filter(|j| (j.hashed || !j.op.of_bytes()) && j.to_string().starts_with(&only)).collect();
    assert!(!jobs.is_empty(), "SLICE_STEPS={only} names no operation");
    let (jobs, rows) = (Mutex::new(jobs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|_| {
                let doing = std::sync::Arc::new(Mutex::new(String::new()));
                let (jobs, rows, told) = (&jobs, &rows, std::sync::Arc::clone(&doing));
                (doing, scope.spawn(move || lane(jobs, rows, &told)))
            })
            .collect();
        let mut failed = Vec::new();
        for (doing, lane) in lanes {
            if lane.join().is_err() {
                // The other lanes stop after what they are at.
                jobs.lock().unwrap().clear();
                failed.push(doing.lock().unwrap().clone());
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|r: &Row| (!r.job.hashed, r.job.op));
    print(&rows);
    for row in &rows {
        assert!(row.messages >= least(row.job), "{}: only {} messages", row.job, row.messages);
        assert!(row.kills >= 2 * row.messages, "{}: only {} kills", row.job, row.kills);
    }
}

fn print(rows: &[Row]) {
    let mut out = format!("{:<24}{:>9}{:>7}\n", "operation", "messages", "kills");
    for r in rows {
        write!(out, "{:<24}{:>9}{:>7}", r.job.to_string(), r.messages, r.kills).unwrap();
        for step in &r.seldom {
            write!(out, "  did not come again: {step}").unwrap();
        }
        out.push('\n');
    }
    let (messages, kills) = rows.iter().fold((0, 0), |(m, k), r| (m + r.messages, k + r.kills));
    writeln!(out, "{:<24}{messages:>9}{kills:>7}", "all").unwrap();
    println!("{out}");
}

/// Takes one operation after the other.
fn lane(jobs: &Mutex<VecDeque<Job>>, rows: &Mutex<Vec<Row>>, doing: &Mutex<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut stage: Option<Stage> = None;
        loop {
            let Some(job) = jobs.lock().unwrap().pop_front() else { return };
            // An ensemble has one policy.
            if stage.as_ref().is_none_or(|s| s.names.hashed() != job.hashed) {
                stage = Some(Stage::new(job.hashed).await);
            }
            let row = stage.as_mut().unwrap().row(job, doing).await;
            rows.lock().unwrap().push(row);
        }
    });
}

impl Stage {
    async fn new(hashed: bool) -> Self {
        let policy = if hashed { NamePolicy::Hash } else { NamePolicy::MkdirSwitching { affinity_ppm: 0 } };
        let e = Ensemble::new(policy).await;
        let (names, client) = (Names::new(&e), Client::new(e.front()));
        Self { e, names, client, runs: 0 }
    }

    async fn row(&mut self, job: Job, doing: &Mutex<String>) -> Row {
        let mut steps: Vec<Step> = Vec::new();
        let mut always: Option<BTreeSet<Step>> = None;
        for _ in 0..LOOKS {
            *doing.lock().unwrap() = format!("{job}, nobody dies");
            let seen = self.act(job.op, None).await.steps;
            let set: BTreeSet<_> = seen.iter().copied().collect();
            always = Some(always.map_or_else(|| set.clone(), |a| &a & &set));
            steps.extend(seen);
        }
        let always = always.unwrap_or_default();
        let mut once = BTreeSet::new();
        steps.retain(|step| once.insert(*step));
        let mut row = Row { job, messages: steps.len() + 1, kills: 0, seldom: Vec::new() };
        for kill in kills(job, &steps) {
            let mut reached = false;
            for _ in 0..TRIES {
                *doing.lock().unwrap() = format!("{job}: {kill}");
                reached = self.act(job.op, Some(kill)).await.reached;
                if reached {
                    break;
                }
            }
            match kill {
                _ if reached => row.kills += 1,
                Kill::At { trap: (step, _), .. }
                    if !always.contains(&step) || step.kind.may_fail_to_come() =>
                {
                    row.seldom.push(step);
                }
                kill => panic!("{kill}: it did not come again"),
            }
        }
        row.seldom.dedup();
        row
    }

    /// One run of an operation, from nothing to a clean check.
    async fn act(&mut self, op: Op, kill: Option<Kill>) -> Seen {
        self.runs += 1;
        // A trap into which nothing fell must not catch what comes now.
        self.e.wire.begin(None);
        let p = Play::prepare(&self.client, &self.names, op, &format!("{op:?}{}", self.runs)).await;
        if !op.needs_soft_state() {
            // What the µproxy knows would keep it from asking.
            self.e.restart(PROXY).await;
        }
        self.e.settle().await;
        let Self { e, names, client, .. } = self;
        let (reply, seen) = if op.is_left() {
            left(e, names, client, &p, kill).await
        } else {
            whole(e, client, &p, kill).await
        };
        verify(e, names, client, &p, &reply).await;
        again(client, &p, &reply).await;
        e.settle().await;
        e.check().await;
        seen
    }
}

/// Every victim at every step.
fn kills(job: Job, steps: &[Step]) -> Vec<Kill> {
    let (mut all, length) = (Vec::new(), Length::get());
    for step in steps {
        let mut victims = BTreeSet::from([step.kind.from, step.kind.to]);
        if length >= Length::Normal {
            victims.insert(PROXY);
        }
        // It has no part in what has to do with names alone.
        if length == Length::Full || (length == Length::Normal && job.op.of_bytes()) {
            victims.insert(COORDINATOR);
        }
        for victim in victims {
            for when in [When::Before, When::After] {
                all.push(Kill::At { trap: (*step, when), victim, late: false });
            }
            if victim == step.kind.from {
                all.push(Kill::At { trap: (*step, When::Before), victim, late: true });
            }
        }
    }
    if !job.op.is_left() {
        for victim in [PROXY, COORDINATOR] {
            all.extend([Kill::Asked(victim), Kill::Answered(victim)]);
        }
    }
    all
}

/// An operation from the client's call until everything is settled.
async fn whole(e: &mut Ensemble, client: &Client, p: &Play, kill: Option<Kill>) -> (Vec<u8>, Seen) {
    let trap = match kill {
        Some(Kill::At { trap, .. }) => Some(trap),
        _ => None,
    };
    if let Some(Kill::Asked(victim)) = kill {
        e.kill(victim).await;
    }
    e.wire.begin(trap);
    let (mut call, mut early): (Reply<'_>, _) = (Box::pin(client.send(&p.record)), None);
    if let Some(Kill::Asked(victim)) = kill {
        // It is on its way before the victim is back.
        if let Poll::Ready(answer) = futures_util::poll!(&mut call) {
            early = Some(answer);
        }
        e.start(victim).await;
    }
    let (mut reply, mut reached) = (early, trap.is_none());
    if let Some(Kill::At { victim, late, .. }) = kill {
        let wire = e.wire.clone();
        let stopped = {
            let stopped = wire.stopped();
            tokio::pin!(stopped);
            let over = async {
                reply = Some(call.as_mut().await);
                e.settle().await;
            };
            tokio::select! {
                biased;
                stopped = &mut stopped => Some(stopped),
                () = over => None,
            }
        };
        if let Some(stopped) = stopped {
            reached = true;
            interrupt(e, victim, late, trap, stopped).await;
        }
    }
    let reply = match reply {
        Some(reply) => reply,
        None => answered(e, call).await,
    };
    if let Some(Kill::Answered(victim)) = kill {
        e.restart(victim).await;
    }
    e.settle().await;
    (reply, Seen { steps: e.wire.seen(), reached })
}

async fn answered(e: &Ensemble, call: Reply<'_>) -> Vec<u8> {
    let reply = tokio::time::timeout(HANGS_AFTER, call).await;
    reply.unwrap_or_else(|_| panic!("no reply:\n{}", e.tell()))
}

/// An operation whose file's home dies when its intention is logged. What counts is what the coordinator does then.
async fn left(
    e: &mut Ensemble,
    names: &Names,
    client: &Client,
    p: &Play,
    kill: Option<Kill>,
) -> (Vec<u8>, Seen) {
    let home = names.home(p.file.as_ref().unwrap().id);
    let logged = Step { kind: Kind::new(home, COORDINATOR, PeerProc::IntentLog), nth: 1 };
    e.wire.begin(Some((logged, When::After)));
    let mut call: Reply<'_> = Box::pin(client.send(&p.record));
    let mut reply = None;
    let wire = e.wire.clone();
    let stopped = {
        let stopped = wire.stopped();
        tokio::pin!(stopped);
        tokio::select! {
            biased;
            stopped = &mut stopped => stopped,
            // A removal is answered first.
            answer = &mut call => {
                reply = Some(answer);
                stopped.await
            }
        }
    };
    e.kill(home).await;
    drop(stopped);
    let trap = match kill {
        Some(Kill::At { trap, .. }) => Some(trap),
        _ => None,
    };
    e.wire.begin(trap);
    let mut reached = trap.is_none();
    if let Some(Kill::At { victim, late, .. }) = kill {
        let stopped = tokio::select! {
            biased;
            stopped = wire.stopped() => Some(stopped),
            () = e.no_intentions() => None,
        };
        if let Some(stopped) = stopped {
            reached = true;
            interrupt(e, victim, late, trap, stopped).await;
        }
    }
    e.no_intentions().await;
    assert!(e.taken_over() > 0, "its owner is dead: who completed it?");
    let steps = e.wire.seen();
    e.start(home).await;
    let reply = match reply {
        Some(reply) => reply,
        None => answered(e, call).await,
    };
    e.settle().await;
    (reply, Seen { steps, reached })
}

/// Somebody dies as a message is stopped, and comes back.
async fn interrupt(e: &mut Ensemble, victim: ServerId, late: bool, trap: Option<Trap>, stopped: Stopped) {
    let Some((Step { kind, .. }, when)) = trap else { return };
    e.kill(victim).await;
    if victim == kind.from && late {
        // It was under way, and outlived who sent it.
        e.start(victim).await;
        e.deliver(kind.to, stopped).await;
        return;
    }
    if victim == kind.to || (victim == kind.from && when == When::Before) {
        // It was never executed, or never sent.
        drop(stopped);
    } else {
        // An error: who would have heard of it has gone meanwhile.
        let _ = stopped.free.send(());
    }
    e.start(victim).await;
}
