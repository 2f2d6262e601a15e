//! Sequential writing and reading of large files, several streams at once.

use crate::client::{Client, Fh, must};
use crate::result::{BulkRow, Mistakes, ServerCpu};
use crate::servers::Watched;
use crate::site::{self, Site, Target};
use crate::tally::Tally;
use crate::{Error, Stop, content, progress};
use indicatif::ProgressBar;
use slice_proto::nfs3::{Proc3, StableHow, Verifier};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;
use tokio::task::JoinSet;

/// KiB of one call, unless the server takes less.
const CALL_KIB: u64 = 1024;
/// Generation of the content.
const ONCE: u32 = 1;

/// What to write and read.
#[derive(Debug, Clone)]
pub struct Streams {
    /// Seed of the content.
    pub seed: u64,
    /// Files at once, each with a connection of its own.
    pub count: u32,
    /// Calls in flight of each.
    pub depth: u32,
    /// MiB of each.
    pub mib: u32,
}

/// One file.
struct Stream {
    client: Client,
    file: Fh,
    key: u64,
    kib: u64,
    call_kib: u64,
    /// The next KiB that nobody has taken.
    next: Cell<u64>,
    verf: RefCell<Option<Verifier>>,
    tally: Rc<Tally>,
    bar: ProgressBar,
    stop: Stop,
}

impl Stream {
    /// The next piece: its first KiB, and how many.
    fn take(&self) -> Option<(u64, u64)> {
        let at = self.next.get();
        let n = self.call_kib.min(self.kib - at);
        self.next.set(at + n);
        (n > 0 && !self.stop.asked()).then_some((at, n))
    }

    fn wrong(&self, proc: Proc3, what: impl Into<String>) {
        self.tally.wrong(proc, what.into());
        self.next.set(self.kib);
    }

    async fn write(self: Rc<Self>) {
        while let Some((at, n)) = self.take() {
            let data = content::bytes(self.key, at, &vec![ONCE; n as usize]);
            match self.client.write(&self.file, at * 1024, &data, StableHow::Unstable).await {
                Ok(slice_proto::nfs3::Res3::Ok(ok)) if ok.count as usize == data.len() => {
                    self.bar.inc(n);
                    let before = self.verf.replace(Some(ok.verf));
                    if before.is_some_and(|before| before != ok.verf) {
                        self.wrong(Proc3::Write, "the write verifier has changed");
                    }
                }
                Ok(slice_proto::nfs3::Res3::Ok(ok)) => {
                    self.wrong(Proc3::Write, format!("{} bytes of {}", ok.count, data.len()));
                }
                Ok(slice_proto::nfs3::Res3::Err(status, _)) => self.wrong(Proc3::Write, format!("{status}")),
                Err(error) => self.wrong(Proc3::Write, error.to_string()),
            }
        }
    }

    async fn commit(&self) {
        match self.client.commit(&self.file, 0, 0).await.map(|res| res.into_result()) {
            Ok(Ok(ok)) => {
                if self.verf.borrow().is_some_and(|before| before != ok.verf) {
                    self.wrong(Proc3::Commit, "the write verifier has changed");
                }
                if ok.wcc.after.is_some_and(|a| a.size != self.kib * 1024 && !self.stop.asked()) {
                    self.wrong(Proc3::Commit, "another size than was written");
                }
            }
            Ok(Err(status)) => self.wrong(Proc3::Commit, format!("{status}")),
            Err(error) => self.wrong(Proc3::Commit, error.to_string()),
        }
    }

    async fn read(self: Rc<Self>) {
        while let Some((at, n)) = self.take() {
            let read = self.client.read(&self.file, at * 1024, (n * 1024) as u32).await;
            match read.map(|res| res.into_result()) {
                Ok(Ok(ok)) => {
                    self.bar.inc(n);
                    if content::wrong_at(self.key, at, &vec![ONCE; n as usize], &ok.data).is_some() {
                        self.wrong(Proc3::Read, "wrong content");
                    }
                }
                Ok(Err(status)) => self.wrong(Proc3::Read, format!("{status}")),
                Err(error) => self.wrong(Proc3::Read, error.to_string()),
            }
        }
    }
}

/// MiB a second, and CPU µs a MiB.
type Speed = (f64, Vec<ServerCpu>);

/// Writes, then reads; none if a stop was asked for. What was wrong is added to `wrong`.
///
/// # Errors
/// No connection, no mount, no file.
pub async fn run(
    streams: &Streams,
    target: &Target,
    servers: &Watched,
    stop: &Stop,
    wrong: &mut Mistakes,
) -> Result<Option<BulkRow>, Error> {
    let name = format!("slice-load-bulk-{:x}", std::process::id());
    let site = Site::open(target, streams.count as usize, name).await?;
    let info = must(Proc3::Fsinfo, site.client()?.fsinfo(&site.dir).await?)?;
    let most = u64::from(info.rtmax.min(info.wtmax)) / 1024;
    let tally = Rc::new(Tally::default());
    let nodes = servers.layout.count.get("blockstore").copied().unwrap_or(0);
    let kib = u64::from(streams.mib) * 1024;
    let bar = progress::kib(&format!("{nodes} storage node(s), writing"));
    bar.set_length(kib * u64::from(streams.count));
    let mut all = Vec::new();
    for n in 0..streams.count {
        let client = site.nth(n as usize)?.clone();
        let file = site::make_file(&client, &site.dir, &format!("stream{n}"), &[]).await?;
        all.push(Rc::new(Stream {
            client,
            file,
            key: content::key(streams.seed, n.into()),
            kib,
            call_kib: CALL_KIB.min(most).max(1),
            next: Cell::new(0),
            verf: RefCell::new(None),
            tally: Rc::clone(&tally),
            bar: bar.clone(),
            stop: stop.clone(),
        }));
    }
    let write = speed(&all, streams, servers, true).await?;
    bar.set_prefix(format!("{nodes} storage node(s), reading"));
    bar.set_position(0);
    bar.reset_elapsed();
    let read = speed(&all, streams, servers, false).await?;
    bar.finish_and_clear();
    let kinds = tally.wrongs();
    wrong.total += kinds.total;
    wrong.kinds.extend(kinds.kinds);
    if stop.asked() || !site.clear(stop).await? {
        return Ok(None);
    }
    let (write_mib_s, write_cpu) = write;
    let (read_mib_s, read_cpu) = read;
    Ok(Some(BulkRow { nodes, write_mib_s, read_mib_s, write_cpu, read_cpu }))
}

async fn speed(
    all: &[Rc<Stream>],
    streams: &Streams,
    servers: &Watched,
    write: bool,
) -> Result<Speed, Error> {
    let (start, cpu) = (Instant::now(), servers.used());
    let mut running = JoinSet::new();
    for stream in all {
        stream.next.set(0);
        let (stream, depth) = (Rc::clone(stream), streams.depth);
        running.spawn_local(async move {
            let mut calls = JoinSet::new();
            for _ in 0..depth.max(1) {
                let stream = Rc::clone(&stream);
                if write {
                    calls.spawn_local(stream.write());
                } else {
                    calls.spawn_local(stream.read());
                }
            }
            calls.join_all().await;
            if write {
                stream.commit().await;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|_| Error::Protocol("a stream panicked"))?;
    }
    let mib = f64::from(streams.count) * f64::from(streams.mib);
    Ok((mib / start.elapsed().as_secs_f64(), servers.since(cpu.as_ref(), mib)))
}
