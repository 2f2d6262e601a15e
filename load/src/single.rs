//! Each procedure alone, from many callers at once, in a closed loop.

use crate::client::{Client, Fh};
use crate::result::{Mistakes, SingleRow};
use crate::servers::Watched;
use crate::site::{self, Site, Target};
use crate::tally::{Tally, lines};
use crate::{Error, Stop, content, progress};
use slice_proto::nfs3::{
    CookieVerf, CreateHow, MknodWhat, NfsStat3, Proc3, Res3, Sattr3, StableHow, TimeHow, access,
};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The procedures, in an order in which what is removed was made.
pub const PROCS: [Proc3; 22] = [
    Proc3::Null,
    Proc3::Getattr,
    Proc3::Setattr,
    Proc3::Lookup,
    Proc3::Access,
    Proc3::Readlink,
    Proc3::Read,
    Proc3::Write,
    Proc3::Commit,
    Proc3::Create,
    Proc3::Remove,
    Proc3::Mkdir,
    Proc3::Rmdir,
    Proc3::Symlink,
    Proc3::Mknod,
    Proc3::Link,
    Proc3::Rename,
    Proc3::Readdir,
    Proc3::Readdirplus,
    Proc3::Fsstat,
    Proc3::Fsinfo,
    Proc3::Pathconf,
];
/// KiB of a caller's file.
const FILE_KIB: u64 = 32;
/// KiB of a READ and of a WRITE.
const CALL_KIB: u64 = 4;
/// Where a caller's symbolic link points.
const POINTS_TO: &[u8] = b"somewhere/else";

/// What to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Seed of the content.
    pub seed: u64,
    /// Connections.
    pub conns: usize,
    /// Callers on each.
    pub inflight: usize,
    /// Time of each procedure before it is measured.
    pub warmup: Duration,
    /// Time of each procedure.
    pub measure: Duration,
}

/// One of those that call, and what it calls about.
struct Caller {
    client: Client,
    dir: Fh,
    file: Fh,
    link: Fh,
    key: u64,
    /// Numbers names.
    next: u64,
    files: Vec<String>,
    dirs: Vec<String>,
}

fn ok<T, F>(res: Result<Res3<T, F>, Error>) -> Result<T, String> {
    res.map_err(|e| e.to_string())?.into_result().map_err(|status| format!("{status}"))
}

impl Caller {
    fn name(&mut self) -> String {
        self.next += 1;
        format!("n{}", self.next)
    }

    /// One call: how long it took; none if there is nothing left to call about.
    async fn step(&mut self, proc: Proc3, round: u64) -> Result<Option<Duration>, String> {
        let (c, dir, file) = (self.client.clone(), self.dir, self.file);
        let mode = Sattr3 { mode: Some(0o755), ..Sattr3::default() };
        let at = round * CALL_KIB % FILE_KIB;
        let same = [0; CALL_KIB as usize];
        if proc == Proc3::Commit {
            let data = content::bytes(self.key, at, &same);
            ok(c.write(&file, at * 1024, &data, StableHow::Unstable).await)?;
        }
        let start = Instant::now();
        match proc {
            Proc3::Null => c.null().await.map_err(|e| e.to_string())?,
            Proc3::Getattr => size(ok(c.getattr(&file).await)?.size)?,
            Proc3::Setattr => {
                let attr = Sattr3 { mode: Some(0o644), mtime: TimeHow::ServerTime, ..Sattr3::default() };
                ok(c.setattr(&file, attr, None).await).map(|_| ())?;
            }
            Proc3::Lookup if ok(c.lookup(&dir, b"file").await)?.object != file => {
                return Err("another object".into());
            }
            Proc3::Lookup => {}
            Proc3::Access if ok(c.access(&file, access::ALL).await)?.access & access::READ == 0 => {
                return Err("reading is not permitted".into());
            }
            Proc3::Access => {}
            Proc3::Readlink if ok(c.readlink(&self.link).await)?.target != POINTS_TO => {
                return Err("another target".into());
            }
            Proc3::Readlink => {}
            Proc3::Read => {
                let got = ok(c.read(&file, at * 1024, (CALL_KIB * 1024) as u32).await)?;
                if content::wrong_at(self.key, at, &same, &got.data).is_some() {
                    return Err("wrong content".into());
                }
            }
            Proc3::Write => {
                let data = content::bytes(self.key, at, &same);
                let done = ok(c.write(&file, at * 1024, &data, StableHow::Unstable).await)?;
                if done.count as usize != data.len() {
                    return Err("not all was written".into());
                }
            }
            Proc3::Commit => ok(c.commit(&file, 0, 0).await).map(|_| ())?,
            Proc3::Create => {
                let name = self.name();
                ok(c.create(&dir, name.as_bytes(), CreateHow::Guarded(mode)).await)?;
                self.files.push(name);
            }
            Proc3::Remove => match self.files.pop() {
                Some(name) => ok(c.remove(&dir, name.as_bytes()).await).map(|_| ())?,
                None => return Ok(None),
            },
            Proc3::Mkdir => {
                let name = self.name();
                ok(c.mkdir(&dir, name.as_bytes(), mode).await)?;
                self.dirs.push(name);
            }
            Proc3::Rmdir => match self.dirs.pop() {
                Some(name) => ok(c.rmdir(&dir, name.as_bytes()).await).map(|_| ())?,
                None => return Ok(None),
            },
            Proc3::Symlink => {
                let name = self.name();
                ok(c.symlink(&dir, name.as_bytes(), Sattr3::default(), POINTS_TO).await).map(|_| ())?;
            }
            Proc3::Mknod => {
                let name = self.name();
                ok(c.mknod(&dir, name.as_bytes(), MknodWhat::Fifo(mode)).await).map(|_| ())?;
            }
            Proc3::Link => {
                let name = self.name();
                match c.link(&file, &dir, name.as_bytes()).await {
                    // The file has as many names as it may.
                    Ok(Res3::Err(NfsStat3::MLINK, _)) => return Ok(None),
                    other => ok(other).map(|_| ())?,
                }
            }
            Proc3::Rename => {
                let names: [&[u8]; 2] = if round.is_multiple_of(2) { [b"a", b"b"] } else { [b"b", b"a"] };
                let [from, to] = names;
                ok(c.rename((&dir, from), (&dir, to)).await).map(|_| ())?;
            }
            Proc3::Readdir => {
                entries(ok(c.readdir(&dir, 0, CookieVerf::default(), 4096).await)?.entries.len())?
            }
            Proc3::Readdirplus => {
                let page = c.readdirplus(&dir, 0, CookieVerf::default(), 4096, 16_384).await;
                entries(ok(page)?.entries.len())?;
            }
            Proc3::Fsstat => ok(c.fsstat(&dir).await).map(|_| ())?,
            Proc3::Fsinfo => ok(c.fsinfo(&dir).await).map(|_| ())?,
            Proc3::Pathconf => ok(c.pathconf(&dir).await).map(|_| ())?,
        }
        Ok(Some(start.elapsed()))
    }
}

fn size(size: u64) -> Result<(), String> {
    if size == FILE_KIB * 1024 { Ok(()) } else { Err(format!("size {size}")) }
}

fn entries(n: usize) -> Result<(), String> {
    if n > 0 { Ok(()) } else { Err("no entry".into()) }
}

/// Runs every procedure of [`PROCS`] in turn: rows so far, when a stop is asked for. What was wrong is added to `wrong`.
///
/// # Errors
/// No connection, no mount, no files.
pub async fn run(
    config: &Config,
    target: &Target,
    servers: &Watched,
    stop: &Stop,
    wrong: &mut Mistakes,
) -> Result<Vec<SingleRow>, Error> {
    let site =
        Site::open(target, config.conns, format!("slice-load-single-{:x}", std::process::id())).await?;
    let mut callers = Vec::new();
    for n in 0..config.conns * config.inflight {
        let client = site.nth(n)?.clone();
        let dir = site::make_dir(&client, &site.dir, &format!("caller{n}")).await?;
        let key = content::key(config.seed, n as u64);
        let data = content::bytes(key, 0, &[0; FILE_KIB as usize]);
        let file = site::make_file(&client, &dir, "file", &data).await?;
        site::make_file(&client, &dir, "a", &[]).await?;
        let made = client.symlink(&dir, b"link", Sattr3::default(), POINTS_TO).await?;
        let made = crate::client::must(Proc3::Symlink, made)?;
        let link = made.object.ok_or(Error::Protocol("SYMLINK returned no handle"))?;
        callers.push(Caller { client, dir, file, link, key, next: 0, files: Vec::new(), dirs: Vec::new() });
    }
    let mut rows = Vec::new();
    for proc in PROCS {
        let tally = Rc::new(Tally::default());
        let bar = progress::time(proc.name(), config.warmup + config.measure);
        let start = Instant::now();
        let end = start + config.warmup + config.measure;
        let mut running = JoinSet::new();
        for mut caller in callers.drain(..) {
            let (tally, stop) = (Rc::clone(&tally), stop.clone());
            running.spawn_local(async move {
                let mut round = 0;
                while Instant::now() < end && !stop.asked() {
                    match caller.step(proc, round).await {
                        Ok(Some(took)) => tally.answered(proc, took),
                        Ok(None) => break,
                        Err(what) => {
                            tally.wrong(proc, what);
                            break;
                        }
                    }
                    round += 1;
                }
                caller
            });
        }
        tokio::time::sleep(config.warmup).await;
        tally.begin();
        let (began, cpu) = (Instant::now(), servers.used());
        while let Some(ended) = running.join_next().await {
            callers.push(ended.map_err(|_| Error::Protocol("a caller panicked"))?);
        }
        let (procs, all) = lines(&tally.end(), began.elapsed().as_secs_f64());
        bar.finish_and_clear();
        let kinds = tally.wrongs();
        wrong.total += kinds.total;
        wrong.kinds.extend(kinds.kinds);
        if stop.asked() {
            break;
        }
        let cpu = servers.since(cpu.as_ref(), all.calls() as f64);
        rows.extend(procs.into_iter().map(|line| SingleRow { line, cpu: cpu.clone() }));
    }
    if !stop.asked() {
        site.clear(stop).await?;
    }
    Ok(rows)
}
