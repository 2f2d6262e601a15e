//! Source trees unpacked by many clients at once: name operations, each waited for by its client.
//!
//! For each file what a client sends that unpacks an archive: LOOKUP (absent), ACCESS of the directory, CREATE, GETATTR, LOOKUP,
//! SETATTR of mode and owner, WRITE, COMMIT, SETATTR of the times; in the order of the paper's figure the two SETATTRs come
//! together: lookup, access, create, getattr, lookup, setattr, setattr, write, commit. For each directory the
//! same up to the second SETATTR, with MKDIR.

use crate::client::{Client, Fh};
use crate::progress;
use crate::result::{Mistakes, UntarRow};
use crate::servers::Watched;
use crate::site::{Site, Target};
use crate::tally::{Latencies, Tally};
use crate::{Error, Stop, content};
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_proto::nfs3::{
    CreateHow, FType3, NfsStat3, NfsTime3, Proc3, Res3, Sattr3, StableHow, TimeHow, access,
};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Files in a directory of the tree, about what a kernel's source has.
const FILES_PER_DIR: u32 = 12;
/// Subdirectories of a directory.
const DIRS_PER_DIR: u32 = 4;
/// Times that an archive restores.
const THEN: NfsTime3 = NfsTime3 { seconds: 1_000_000_000, nseconds: 0 };

/// What to unpack.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Seed of the files' sizes.
    pub seed: u64,
    /// Files of one client's tree.
    pub files: u32,
}

/// One entry of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A directory: its number and its parent's. 0 is the tree's root, which is there.
    Dir {
        /// Its number.
        number: u32,
        /// Its parent's.
        parent: u32,
    },
    /// A file.
    File {
        /// Its number.
        number: u32,
        /// Its directory's.
        dir: u32,
        /// Its size, in KiB.
        kib: u32,
    },
}

impl Tree {
    /// The archive, in order: a directory comes before what is in it. Pure.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        (0..self.files).flat_map(move |number| {
            let dir = number / FILES_PER_DIR;
            let begins = number % FILES_PER_DIR == 0 && dir > 0;
            let made = begins.then(|| Entry::Dir { number: dir, parent: (dir - 1) / DIRS_PER_DIR });
            // Source files are small: half of them below 4 KiB.
            let kib = 1 << rng.random_range(0..6u32) >> rng.random_range(0..2u32);
            made.into_iter().chain([Entry::File { number, dir, kib: kib.max(1) }])
        })
    }

    /// Calls that it takes.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.entries().map(|e| if matches!(e, Entry::Dir { .. }) { 7 } else { 9 }).sum()
    }
}

/// One client at work.
struct Unpacker {
    client: Client,
    tally: Rc<Tally>,
    bar: ProgressBar,
    stop: Stop,
}

type Checked<T> = Result<T, (Proc3, String)>;

impl Unpacker {
    async fn call<T>(&self, proc: Proc3, call: impl Future<Output = Result<T, Error>>) -> Checked<T> {
        let start = Instant::now();
        let got = call.await.map_err(|e| (proc, e.to_string()))?;
        self.tally.answered(proc, start.elapsed());
        self.bar.inc(1);
        Ok(got)
    }

    /// A call whose failure is wrong.
    async fn must<T, F>(
        &self,
        proc: Proc3,
        call: impl Future<Output = Result<Res3<T, F>, Error>>,
    ) -> Checked<T> {
        let res = self.call(proc, call).await?;
        res.into_result().map_err(|status| (proc, format!("{status}")))
    }

    /// What is the same for files and directories: made, looked at, found again, given mode, owner and times.
    async fn make(&self, dir: &Fh, name: &[u8], ftype: FType3) -> Checked<Fh> {
        let c = &self.client;
        match self.call(Proc3::Lookup, c.lookup(dir, name)).await? {
            Res3::Err(NfsStat3::NOENT, _) => {}
            other => return Err((Proc3::Lookup, format!("{} for a name that is not there", other.status()))),
        }
        self.must(Proc3::Access, c.access(dir, access::ALL)).await?;
        let (proc, made) = if ftype == FType3::Dir {
            let attr = Sattr3 { mode: Some(0o755), ..Sattr3::default() };
            (Proc3::Mkdir, self.must(Proc3::Mkdir, c.mkdir(dir, name, attr)).await?)
        } else {
            let how = CreateHow::Unchecked(Sattr3 { mode: Some(0o600), ..Sattr3::default() });
            (Proc3::Create, self.must(Proc3::Create, c.create(dir, name, how)).await?)
        };
        let fh = made.object.ok_or((proc, "no handle".to_owned()))?;
        let attr = self.must(Proc3::Getattr, c.getattr(&fh)).await?;
        if attr.ftype != ftype {
            return Err((Proc3::Getattr, "another kind of object than was made".into()));
        }
        let found = self.must(Proc3::Lookup, c.lookup(dir, name)).await?;
        if found.object != fh && found.attr.is_none_or(|a| a.fileid != attr.fileid) {
            return Err((Proc3::Lookup, "another object than was made".into()));
        }
        let mode = if ftype == FType3::Dir { 0o755 } else { 0o644 };
        let owner =
            Sattr3 { mode: Some(mode), uid: Some(attr.uid), gid: Some(attr.gid), ..Sattr3::default() };
        let set = self.must(Proc3::Setattr, c.setattr(&fh, owner, None)).await?;
        if set.after.is_some_and(|a| a.mode & 0o777 != mode) {
            return Err((Proc3::Setattr, "another mode than was set".into()));
        }
        let times =
            Sattr3 { atime: TimeHow::Client(THEN), mtime: TimeHow::Client(THEN), ..Sattr3::default() };
        let set = self.must(Proc3::Setattr, c.setattr(&fh, times, None)).await?;
        if set.after.is_some_and(|a| a.mtime != THEN) {
            return Err((Proc3::Setattr, "another time than was set".into()));
        }
        Ok(fh)
    }

    async fn unpack(&self, tree: &Tree, root: Fh, client: u32) -> Checked<()> {
        let mut dirs = vec![root];
        let nowhere = || (Proc3::Mkdir, "the archive is out of order".to_owned());
        for entry in tree.entries() {
            if self.stop.asked() {
                return Ok(());
            }
            match entry {
                Entry::Dir { number, parent } => {
                    let parent = *dirs.get(parent as usize).ok_or_else(nowhere)?;
                    dirs.push(self.make(&parent, format!("dir{number}").as_bytes(), FType3::Dir).await?);
                }
                Entry::File { number, dir, kib } => {
                    let dir = *dirs.get(dir as usize).ok_or_else(nowhere)?;
                    let fh = self.make(&dir, format!("source{number}.c").as_bytes(), FType3::Reg).await?;
                    let key = content::key(tree.seed, u64::from(client) << 32 | u64::from(number));
                    let data = content::bytes(key, 0, &vec![0; kib as usize]);
                    let write = self.client.write(&fh, 0, &data, StableHow::Unstable);
                    let done = self.must(Proc3::Write, write).await?;
                    if done.count as usize != data.len() {
                        return Err((Proc3::Write, "not all was written".into()));
                    }
                    let sure = self.must(Proc3::Commit, self.client.commit(&fh, 0, 0)).await?;
                    if done.committed == StableHow::Unstable && sure.verf != done.verf {
                        return Err((Proc3::Commit, "the write verifier has changed".into()));
                    }
                    if sure.wcc.after.is_some_and(|a| a.size != data.len() as u64) {
                        return Err((Proc3::Commit, "another size than was written".into()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Unpacks with each number of clients in turn; a row for each that came to its end. What was wrong is added to `wrong`.
///
/// # Errors
/// No connection, no mount.
pub async fn run(
    tree: &Tree,
    clients: &[u32],
    target: &Target,
    servers: &Watched,
    stop: &Stop,
    wrong: &mut Mistakes,
) -> Result<Vec<UntarRow>, Error> {
    let mut rows = Vec::new();
    for n in clients {
        let name = format!("slice-load-untar-{:x}-{n}", std::process::id());
        let site = Site::open(target, *n as usize, name).await?;
        let policy = servers.layout.policy.as_deref().unwrap_or("the server");
        let tally = Rc::new(Tally::default());
        let bar = progress::calls(&format!("{policy}, {n} client(s)"), tree.calls() * u64::from(*n));
        let row = unpack_all(tree, *n, &site, (&tally, servers), stop, &bar).await;
        bar.finish_and_clear();
        let kinds = tally.wrongs();
        wrong.total += kinds.total;
        wrong.kinds.extend(kinds.kinds);
        let Some(row) = row? else { break };
        rows.push(row);
        if !site.clear(stop).await? {
            break;
        }
    }
    Ok(rows)
}

async fn unpack_all(
    tree: &Tree,
    n: u32,
    site: &Rc<Site>,
    (tally, servers): (&Rc<Tally>, &Watched),
    stop: &Stop,
    bar: &ProgressBar,
) -> Result<Option<UntarRow>, Error> {
    let mut roots = Vec::new();
    for client in 0..n {
        roots.push(crate::site::make_dir(site.client()?, &site.dir, &format!("client{client}")).await?);
    }
    let (start, cpu) = (Instant::now(), servers.used());
    tally.begin();
    let mut running = JoinSet::new();
    for (client, root) in (0..n).zip(roots) {
        let unpacker = Unpacker {
            client: site.nth(client as usize)?.clone(),
            tally: Rc::clone(tally),
            bar: bar.clone(),
            stop: stop.clone(),
        };
        let tree = tree.clone();
        running.spawn_local(async move {
            if let Err((proc, what)) = unpacker.unpack(&tree, root, client).await {
                unpacker.tally.wrong(proc, what);
            }
            start.elapsed()
        });
    }
    let mut took = Vec::new();
    while let Some(ended) = running.join_next().await {
        took.push(ended.map_err(|_| Error::Protocol("a client panicked"))?);
    }
    let all_s = start.elapsed().as_secs_f64();
    let mut all = Latencies::default();
    tally.end().values().for_each(|l| all.add(l));
    if stop.asked() {
        return Ok(None);
    }
    let policy = servers.layout.policy.clone();
    let affinity = policy.as_deref().and_then(|p| p.strip_prefix("mkdir:")?.parse().ok());
    Ok(Some(UntarRow {
        policy,
        affinity,
        dirservers: servers.layout.count.get("dirserver").copied().unwrap_or(0),
        clients: n,
        mean_s: took.iter().map(Duration::as_secs_f64).sum::<f64>() / f64::from(n),
        all_s,
        per_s: all.calls() as f64 / all_s,
        latency: all.figures(),
        cpu: servers.since(cpu.as_ref(), all.calls() as f64),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_archive_is_in_order(seed: u64, files in 1u32..400) {
            let tree = Tree { seed, files };
            let (mut dirs, mut made, mut calls) = (1, 0, 0);
            for entry in tree.entries() {
                match entry {
                    Entry::Dir { number, parent } => {
                        prop_assert_eq!(number, dirs);
                        prop_assert!(parent < dirs);
                        dirs += 1;
                        calls += 7;
                    }
                    Entry::File { number, dir, kib } => {
                        prop_assert_eq!(number, made);
                        prop_assert!(dir < dirs && (1..=32).contains(&kib));
                        made += 1;
                        calls += 9;
                    }
                }
            }
            prop_assert_eq!((made, calls), (files, tree.calls()));
        }
    }
}
