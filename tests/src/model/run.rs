//! Runs a sequence: draws, sends, compares; kills servers, and makes good what an unstable server may forget.

use super::check::check;
use super::fs::{Fs, Id, Moved, Node, Time};
use super::generate::Generator;
use super::op::{At, Op};
use super::scan::Scan;
use super::wire::Wire;
use super::{Error, Result, differs};
use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_load::conn::Reply;
use slice_load::{Client, client::Fh};
use slice_proto::nfs3::{
    CommitRes, CreateRes, GetattrRes, NfsStat3, Proc3, Res3, Sattr3, StableHow, WriteRes,
};
use slice_proto::rpc_msg::Cred;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Gives the same operations again.
    pub seed: u64,
    /// How many operations.
    pub steps: usize,
    /// A fault about every so many operations, if there are any.
    pub fault_every: u32,
    /// The server is not ours: no promise beyond the RFC's is checked.
    pub reference: bool,
}

/// Kills servers.
pub trait Faults {
    /// Kills one, or some, whose restart is somebody else's business. Waits for earlier ones to be back.
    fn kill(&mut self, rng: &mut StdRng) -> std::result::Result<String, crate::Error>;
}

/// What was run.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    /// Operations by procedure: successes and failures.
    pub calls: BTreeMap<Proc3, (u64, u64)>,
    /// Records that were sent again although they had been answered.
    pub repeated: u64,
    /// Servers that were killed.
    pub killed: u64,
    /// Ranges written again because a verifier had changed.
    pub rewritten: u64,
}

/// Operations that a failure shows before it, whatever they are about.
const SHOWN: usize = 20;
/// Operations on the nodes that a failure names that it shows.
const SHOWN_OF_NODES: usize = 40;
/// Successes that may be sent again later: well below what a server's reply cache keeps of a client.
const REPEATABLE: usize = 40;
/// Longest READ when all is compared at the end.
const CHUNK: u32 = 256 << 10;
/// Rounds of writing again, each after another change of a verifier.
const MOST_ROUNDS: usize = 20;

/// A sequence under way.
struct Sequence<'f> {
    wire: Wire,
    fs: Fs,
    generator: Generator,
    faults: Option<&'f mut dyn Faults>,
    figures: Figures,
    shown: Vec<String>,
    repeatable: VecDeque<(BytesMut, Reply, Op)>,
    reference: bool,
}

/// Runs a sequence of operations as [`Settings`] says, on the export whose root `mount` has found, and then compares
/// everything. Must run inside a `LocalSet`.
pub async fn run(
    peer: SocketAddr,
    root: Fh,
    settings: &Settings,
    faults: Option<&mut dyn Faults>,
) -> Result<Figures> {
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let patient = faults.is_some();
    // Xids are drawn apart from the seed: the same sequence in the same ensemble is another client's.
    let wire = Wire::connect(peer, rand::random(), patient).await?;
    let client = Client::connect(peer).await?;
    let open = Sattr3 { mode: Some(0o777), ..Sattr3::default() };
    client
        .setattr(&root, open, None)
        .await?
        .into_result()
        .or_else(|s| differs(format!("opening the root: {s}")))?;
    let attr = client.getattr(&root).await?.into_result().or_else(|s| differs(format!("GETATTR: {s}")))?;
    let mut sequence = Sequence {
        wire,
        fs: Fs::new(root, attr, settings.reference),
        generator: Generator::new(StdRng::seed_from_u64(rng.random())),
        faults,
        figures: Figures::default(),
        shown: Vec::new(),
        repeatable: VecDeque::new(),
        reference: settings.reference,
    };
    for step in 0..settings.steps {
        let (cred, mut op) = sequence.generator.next(&mut sequence.fs);
        if let Op::Readdir { count, .. } | Op::Readdirplus { maxcount: count, .. } = &mut op
            && settings.reference
        {
            // It fails where an entry does not fit.
            *count = 32 << 10;
        }
        let fault = sequence.faults.is_some() && rng.random_ratio(1, settings.fault_every.max(1));
        let outcome =
            if fault { sequence.faulty(&cred, &op, &mut rng).await } else { sequence.step(&cred, &op).await };
        outcome.map_err(|why| sequence.failed(settings.seed, step, &op, &why))?;
    }
    let end = Op::Null;
    sequence.everything().await.map_err(|why| sequence.failed(settings.seed, settings.steps, &end, &why))?;
    Ok(sequence.figures)
}

impl Sequence<'_> {
    fn failed(&self, seed: u64, step: usize, op: &Op, why: &Error) -> Error {
        let why = why.to_string();
        let last = self.shown.last().map(String::as_str).unwrap_or_default();
        let ids = named(&format!("{why} {last}"));
        // The root is in everything.
        let about = |line: &&String| named(line).iter().any(|id| *id != 0 && ids.contains(id));
        let mut before: Vec<_> =
            self.shown.iter().filter(about).rev().take(SHOWN_OF_NODES).cloned().collect();
        before.push("of these nodes:".to_owned());
        before.extend(self.shown.iter().rev().take(SHOWN).cloned());
        before.reverse();
        Error::Step { seed, step, op: op.to_string(), why, before: before.join("\n") }
    }

    fn show(&mut self, line: String) {
        self.shown.push(format!("{}: {line}", self.shown.len()));
    }

    /// One operation, sometimes sent twice.
    async fn step(&mut self, cred: &Cred, op: &Op) -> Result<()> {
        let record = op.record(&self.fs, self.wire.next_xid(), *cred);
        let draw = if op.is_once() { self.generator.rng().random_range(0..20) } else { 19 };
        let reply = self.wire.send(&record, if draw == 0 && !self.reference { 2 } else { 1 }).await?;
        self.judge(cred, op, &reply)?;
        // The reference drops what is sent again soon.
        if op.is_once() && !self.reference {
            self.repeat(draw, record, reply, op).await?;
        }
        Ok(())
    }

    fn judge(&mut self, cred: &Cred, op: &Op, reply: &Reply) -> Result<()> {
        let children = self.children(op);
        let outcome = check(&mut self.fs, cred, op, reply);
        let said = outcome.as_ref().map_or_else(|_| "differs".to_owned(), ToString::to_string);
        self.show(format!("uid {} {op}{children}: {said}", cred.uid));
        let (ok, failed) = self.figures.calls.entry(op.proc()).or_default();
        match outcome? {
            NfsStat3::OK => *ok += 1,
            _ => *failed += 1,
        }
        Ok(())
    }

    /// Whom an operation's names stand for, before and (of what it makes) after it.
    fn children(&self, op: &Op) -> String {
        let (one, two) = match op {
            Op::Rename { from, to } => (Some(from), Some(to)),
            Op::Lookup(at)
            | Op::Create { at, .. }
            | Op::Mkdir { at, .. }
            | Op::Symlink { at, .. }
            | Op::Mknod { at, .. }
            | Op::Remove(at)
            | Op::Rmdir(at)
            | Op::Link { at, .. } => (Some(at), None),
            _ => (None, None),
        };
        let next = self.fs.nodes().count();
        let child = |at: &At| match self.fs.child(at.dir, &at.name) {
            Some(id) => format!(" (#{id})"),
            None => format!(" (no, or #{next})"),
        };
        one.into_iter().chain(two).map(child).collect()
    }

    /// What must be done once is sent again: at once, or some operations later. The answer is the first one (I10).
    async fn repeat(&mut self, draw: u32, record: BytesMut, reply: Reply, op: &Op) -> Result<()> {
        if draw < 3 {
            self.show(format!("{} again, at once", op.proc()));
            let again = self.wire.send(&record, 1).await?;
            same(op, &reply, &again, true)?;
            self.figures.repeated += 1;
        }
        if status(&reply)? != NfsStat3::OK {
            return Ok(());
        }
        if draw == 3
            && let Some((record, reply, op)) =
                self.repeatable.get(self.generator.rng().random_range(0..REPEATABLE)).cloned()
        {
            self.show(format!("{op} again, later"));
            let again = self.wire.send(&record, 1).await?;
            same(&op, &reply, &again, false)?;
            self.figures.repeated += 1;
        }
        if self.repeatable.len() >= REPEATABLE {
            self.repeatable.pop_front();
        }
        self.repeatable.push_back((record, reply, op.clone()));
        Ok(())
    }

    /// One operation, and a server killed before it or meanwhile.
    async fn faulty(&mut self, cred: &Cred, op: &Op, rng: &mut StdRng) -> Result<()> {
        if rng.random_bool(0.4) {
            self.kill(rng)?;
            self.recover().await?;
            return self.step(cred, op).await;
        }
        // What is not committed could be lost under the operation's feet: then nobody knows what it must show.
        self.recover().await?;
        let pause = Duration::from_micros(rng.random_range(0..5000));
        let record = op.record(&self.fs, self.wire.next_xid(), *cred);
        let Self { wire, faults, .. } = self;
        let Some(faults) = faults.as_deref_mut() else { return Ok(()) };
        let killing = async {
            tokio::time::sleep(pause).await;
            faults.kill(rng)
        };
        let (reply, killed) = tokio::join!(wire.send(&record, 1), killing);
        self.figures.killed += 1;
        self.show(format!("killed {} meanwhile", killed?));
        let reply = reply?;
        self.judge(cred, op, &reply)?;
        self.recover().await?;
        if op.is_once() {
            // After a crash, too, the answer is the first one.
            self.repeat(0, record, reply, op).await?;
        }
        Ok(())
    }

    fn kill(&mut self, rng: &mut StdRng) -> Result<()> {
        let Some(faults) = self.faults.as_deref_mut() else { return Ok(()) };
        let killed = faults.kill(rng)?;
        self.figures.killed += 1;
        self.show(format!("killed {killed}"));
        Ok(())
    }

    /// An operation of root's that is not of the sequence.
    async fn aside(&mut self, op: &Op) -> Result<Reply> {
        let record = op.record(&self.fs, self.wire.next_xid(), Cred::ROOT);
        self.wire.send(&record, 1).await
    }

    /// Commits everything; what a changed verifier says may be lost is written again (I7), as clients do.
    async fn recover(&mut self) -> Result<()> {
        let dirty: Vec<Id> = self
            .fs
            .nodes()
            .filter(|(_, n)| n.alive() && !n.uncommitted.is_empty())
            .map(|(id, _)| id)
            .collect();
        for id in dirty {
            let mut rounds = 0;
            while let Some(ranges) = self.commit(id).await? {
                rounds += 1;
                if self.faults.is_none() {
                    return differs(format!("the verifier of #{id} changed, and nothing was killed"));
                }
                if rounds > MOST_ROUNDS {
                    return differs(format!("the verifier of #{id} never stays the same"));
                }
                for (offset, len) in ranges {
                    self.rewrite(id, offset, len).await?;
                }
            }
            let reply = self.aside(&Op::Getattr(id)).await?;
            let Res3::Ok(attr) = reply.decode::<GetattrRes>()? else {
                return differs(format!("#{id} is gone"));
            };
            if self.faults.is_some()
                && let Some(n) = self.fs.node_mut(id)
            {
                // Times that were shown may have been lost with a µproxy.
                n.moved = Moved { atime: Time::Any, mtime: Time::Any, ctime: Time::Any };
            }
            if let Some(n) = self.fs.node_mut(id) {
                n.pushed();
            }
            self.fs.see(id, &attr)?;
        }
        Ok(())
    }

    /// Commits a file; the ranges that must be written again, if there are any. Its attributes are not looked at: what
    /// was lost shows in them.
    async fn commit(&mut self, id: Id) -> Result<Option<Vec<(u64, u64)>>> {
        let reply = self.aside(&Op::Commit(id)).await?;
        let Res3::Ok(ok) = reply.decode::<CommitRes>()? else {
            return differs(format!("COMMIT of #{id} failed"));
        };
        let Some(n) = self.fs.node_mut(id) else { return Ok(None) };
        n.uncommitted.retain(|u| u.verf != ok.verf);
        let ranges: Vec<_> = std::mem::take(&mut n.uncommitted).iter().map(|u| (u.offset, u.len)).collect();
        Ok((!ranges.is_empty()).then_some(ranges))
    }

    /// Writes what the model has in a range.
    async fn rewrite(&mut self, id: Id, offset: u64, len: u64) -> Result<()> {
        let Some(bytes) = self.fs.node(id).and_then(Node::bytes) else { return Ok(()) };
        let end = (offset + len).min(bytes.len() as u64);
        let Some(data) = bytes.get(offset as usize..end as usize).filter(|d| !d.is_empty()) else {
            return Ok(());
        };
        let (data, len) = (data.to_vec(), end - offset);
        let reply = self.aside(&Op::Write { node: id, offset, data, stable: StableHow::Unstable }).await?;
        match reply.decode::<WriteRes>()? {
            Res3::Ok(ok) if u64::from(ok.count) == len => {
                self.figures.rewritten += 1;
                if let Some(n) = self.fs.node_mut(id) {
                    n.uncommitted.push(super::fs::Uncommitted { offset, len, verf: ok.verf });
                }
                Ok(())
            }
            other => differs(format!("writing #{id} again: {other:?}")),
        }
    }

    /// Compares everything there is: attributes, bytes, names, listings.
    async fn everything(&mut self) -> Result<()> {
        self.recover().await?;
        let all: Vec<Id> = self.fs.nodes().filter(|(_, n)| n.alive()).map(|(id, _)| id).collect();
        for id in all {
            self.step(&Cred::ROOT, &Op::Getattr(id)).await?;
            let size = self.fs.node(id).and_then(Node::bytes).map(Vec::len);
            for offset in (0..=size.unwrap_or(0) as u64).step_by(CHUNK as usize).filter(|_| size.is_some()) {
                self.step(&Cred::ROOT, &Op::Read { node: id, offset, count: CHUNK }).await?;
            }
            let Some(names) = self.fs.node(id).and_then(Node::names).cloned() else { continue };
            for name in names.keys() {
                self.step(&Cred::ROOT, &Op::Lookup(At { dir: id, name: name.clone() })).await?;
            }
            self.fs.scans = vec![Scan::new(id, &names)];
            while self.fs.scans.first().is_some_and(|s| !s.over) {
                let op = Op::Readdirplus { scan: 0, dircount: 4096, maxcount: 16 << 10 };
                self.step(&Cred::ROOT, &op).await?;
            }
        }
        Ok(())
    }
}

/// The nodes that a line names.
fn named(line: &str) -> BTreeSet<Id> {
    let digits = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
    line.split('#').skip(1).filter_map(digits).collect()
}

/// A reply's status: the first word of its results.
fn status(reply: &Reply) -> Result<NfsStat3> {
    let body = reply.results();
    let word = body.first_chunk().map(|b| u32::from_be_bytes(*b));
    word.map_or_else(|| differs("a reply without a status"), |w| Ok(NfsStat3(w)))
}

/// Two answers to the same record. Attributes of files may have been brought up to date in the later one.
fn same(op: &Op, first: &Reply, again: &Reply, at_once: bool) -> Result<()> {
    if first.results() == again.results() {
        return Ok(());
    }
    let (one, two) = (status(first)?, status(again)?);
    if one != two {
        return differs(format!("sent again, it answers {two} instead of {one}"));
    }
    if !matches!(op.proc(), Proc3::Create | Proc3::Link) || (at_once && op.proc() == Proc3::Create) {
        return differs("sent again, it answers otherwise");
    }
    if op.proc() == Proc3::Create
        && let (Res3::Ok(x), Res3::Ok(y)) =
            (first.decode::<CreateRes<'_>>()?, again.decode::<CreateRes<'_>>()?)
        && x.object != y.object
    {
        return differs("sent again, it made another object");
    }
    Ok(())
}
