//! The files and directories that an operation runs on: made before, removed after.

use super::Config;
use super::ops::Op;
use crate::Error;
use crate::client::{Client, Fh, Listed, must};
use slice_proto::nfs3::{CookieVerf, CreateHow, FType3, NfsStat3, Proc3, Res3, Sattr3, StableHow};
use std::collections::HashSet;

/// Bytes of each caller's file for small reads and writes: below Slice's threshold.
pub const SMALL_FILE: u64 = 32 << 10;
/// MiB of each connection's file for sequential reads and writes.
pub const LARGE_FILE_MIB: u64 = 64;
/// One call of a sequential read or write.
pub const MIB: u32 = 1 << 20;
/// Entries of the directory that is read.
pub const DIR_ENTRIES: usize = 10_000;
/// Calls in flight while preparing.
const PREPARE_WINDOW: usize = 64;
/// Counts of READDIRPLUS, as Linux asks by default: dircount, maxcount.
pub const DIRCOUNT: u32 = 8 << 10;
/// See [`DIRCOUNT`].
pub const MAXCOUNT: u32 = 32 << 10;

/// Everything prepared for a run.
#[derive(Debug)]
pub struct Ground {
    root: Fh,
    name: Vec<u8>,
    dir: Fh,
    places: Vec<Vec<Place>>,
}

/// What one caller runs on.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it may make what it likes, with the other callers of its connection.
    pub dir: Fh,
    /// Where its file is.
    pub file_dir: Fh,
    /// Its file's name.
    pub name: Vec<u8>,
    /// Its file.
    pub file: Fh,
}

fn mode(mode: u32) -> Sattr3 {
    Sattr3 { mode: Some(mode), ..Sattr3::default() }
}

/// Makes a directory; takes the one that is there.
pub async fn make_dir(client: &Client, dir: &Fh, name: &[u8]) -> Result<Fh, Error> {
    match client.mkdir(dir, name, mode(0o777)).await? {
        Res3::Ok(made) if made.object.is_some() => made.object.ok_or(Error::Protocol("no handle")),
        Res3::Ok(_) | Res3::Err(NfsStat3::EXIST, _) => {
            Ok(must(Proc3::Lookup, client.lookup(dir, name).await?)?.object)
        }
        Res3::Err(status, _) => Err(Error::Nfs { proc: Proc3::Mkdir, status }),
    }
}

/// Makes an empty file; empties the one that is there.
pub async fn make_file(client: &Client, dir: &Fh, name: &[u8]) -> Result<Fh, Error> {
    let attr = Sattr3 { size: Some(0), ..mode(0o666) };
    let made = must(Proc3::Create, client.create(dir, name, CreateHow::Unchecked(attr)).await?)?;
    match made.object {
        Some(fh) => Ok(fh),
        None => Ok(must(Proc3::Lookup, client.lookup(dir, name).await?)?.object),
    }
}

/// Writes `len` bytes, then commits.
async fn fill(client: &Client, file: &Fh, len: u64) -> Result<(), Error> {
    let data = vec![0x5a; MIB as usize];
    let mut at = 0;
    while at < len {
        let part = usize::try_from((len - at).min(u64::from(MIB))).unwrap_or(data.len());
        let part = data.get(..part).unwrap_or(&data);
        let written = must(Proc3::Write, client.write(file, at, part, StableHow::Unstable).await?)?;
        if written.count == 0 {
            return Err(Error::Protocol("WRITE wrote nothing"));
        }
        at += u64::from(written.count);
    }
    must(Proc3::Commit, client.commit(file, 0, 0).await?)?;
    Ok(())
}

/// All entries of a directory but `.` and `..`.
pub async fn list(client: &Client, dir: &Fh) -> Result<Vec<Listed>, Error> {
    let (mut all, mut cookie, mut verf) = (Vec::new(), 0, CookieVerf::default());
    loop {
        let page = client.readdirplus(dir, cookie, verf, DIRCOUNT, MAXCOUNT).await?;
        let page = must(Proc3::Readdirplus, page)?;
        match page.entries.last() {
            Some(last) => cookie = last.cookie,
            None if page.eof => return Ok(all),
            None => return Err(Error::Protocol("READDIRPLUS returned no entry and no end")),
        }
        verf = page.verf;
        all.extend(page.entries.into_iter().filter(|e| e.name != b"." && e.name != b".."));
        if page.eof {
            return Ok(all);
        }
    }
}

/// Runs `step` for every number below `n`, [`PREPARE_WINDOW`] at a time.
async fn pipelined<F>(n: usize, step: impl Fn(usize) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>> + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    for i in 0..n {
        if running.len() >= PREPARE_WINDOW {
            ended(running.join_next().await)?;
        }
        running.spawn_local(step(i));
    }
    while !running.is_empty() {
        ended(running.join_next().await)?;
    }
    Ok(())
}

fn ended(step: Option<Result<Result<(), Error>, tokio::task::JoinError>>) -> Result<(), Error> {
    step.map_or(Ok(()), |ended| ended.map_err(|_| Error::Protocol("a step panicked"))?)
}

// === impl Ground ===

impl Ground {
    /// Makes what `config.op` runs on.
    pub async fn prepare(client: &Client, root: Fh, config: &Config) -> Result<Self, Error> {
        let name = format!("slice-load-{}-{}", config.op, std::process::id()).into_bytes();
        if config.op == Op::Null {
            return Ok(Self { root, name, dir: root, places: vec![] });
        }
        let dir = make_dir(client, &root, &name).await?;
        let mut places = Vec::new();
        for conn in 0..config.conns {
            let own = if config.op.needs_dir() {
                make_dir(client, &dir, format!("dir{conn}").as_bytes()).await?
            } else {
                dir
            };
            let lanes = if config.op.is_stream() { 1 } else { config.inflight };
            let mut all = Vec::new();
            for lane in 0..lanes {
                let name = format!("file{conn}-{lane}").into_bytes();
                let file = if config.op.needs_file() { make_file(client, &dir, &name).await? } else { own };
                let len = config.op.file_len();
                if len > 0 {
                    fill(client, &file, len).await?;
                }
                all.push(Place { dir: own, file_dir: dir, name, file });
            }
            places.push(all);
        }
        let ground = Self { root, name, dir, places };
        if config.op == Op::Readdirplus {
            ground.populate(client).await?;
        }
        Ok(ground)
    }

    /// What caller `lane` of connection `conn` runs on.
    pub fn place(&self, conn: usize, lane: usize) -> Result<Place, Error> {
        let none = Place { dir: self.root, file_dir: self.root, name: vec![], file: self.root };
        if self.places.is_empty() {
            return Ok(none);
        }
        let place = self.places.get(conn).and_then(|lanes| lanes.get(lane));
        place.cloned().ok_or(Error::Protocol("more callers than were prepared for"))
    }

    /// Makes the directory that is read, and checks that one scan finds every entry once.
    async fn populate(&self, client: &Client) -> Result<(), Error> {
        let (worker, dir) = (client.clone(), self.dir);
        pipelined(DIR_ENTRIES, |i| {
            let client = worker.clone();
            async move { make_file(&client, &dir, format!("entry-{i:05}").as_bytes()).await.map(|_| ()) }
        })
        .await?;
        let all = list(client, &dir).await?;
        let unique: HashSet<_> = all.iter().map(|e| &e.name).collect();
        if all.len() != DIR_ENTRIES || unique.len() != DIR_ENTRIES {
            return Err(Error::Protocol("READDIRPLUS did not find every entry exactly once"));
        }
        Ok(())
    }

    /// Removes everything that the run made.
    pub async fn clear(&self, client: &Client) -> Result<(), Error> {
        if self.dir == self.root {
            return Ok(());
        }
        clear_tree(client, self.dir).await?;
        must(Proc3::Rmdir, client.rmdir(&self.root, &self.name).await?)?;
        Ok(())
    }
}

/// Removes everything in `top`, directories from the deepest up.
async fn clear_tree(client: &Client, top: Fh) -> Result<(), Error> {
    let (mut dirs, mut seen) = (vec![top], 0);
    let mut emptied = Vec::new();
    while let Some(dir) = dirs.get(seen).copied() {
        seen += 1;
        let mut files = Vec::new();
        for entry in list(client, &dir).await? {
            let (object, attr) = match (entry.handle, entry.attr) {
                (Some(handle), Some(attr)) => (handle, Some(attr)),
                _ => {
                    let found = must(Proc3::Lookup, client.lookup(&dir, &entry.name).await?)?;
                    (found.object, found.attr)
                }
            };
            if attr.is_some_and(|a| a.ftype == FType3::Dir) {
                dirs.push(object);
                emptied.push((dir, entry.name));
            } else {
                files.push(entry.name);
            }
        }
        pipelined(files.len(), |i| {
            let (client, name) = (client.clone(), files.get(i).cloned().unwrap_or_default());
            async move { must(Proc3::Remove, client.remove(&dir, &name).await?).map(|_| ()) }
        })
        .await?;
    }
    for (parent, name) in emptied.into_iter().rev() {
        must(Proc3::Rmdir, client.rmdir(&parent, &name).await?)?;
    }
    Ok(())
}
