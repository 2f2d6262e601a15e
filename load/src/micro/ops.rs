//! The operations: what one caller does, step after step, until the run ends.

use super::prepare::{DIRCOUNT, LARGE_FILE_MIB, MAXCOUNT, MIB, Place, SMALL_FILE, make_dir, make_file};
use crate::Error;
use crate::client::{Client, must};
use crate::meter::Meter;
use clap::ValueEnum;
use slice_proto::nfs3::{
    CookieVerf, CreateHow, NfsStat3, NfsTime3, Proc3, Res3, Sattr3, StableHow, TimeHow, access,
};
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use tokio::task::JoinSet;

/// Bytes of a small read or write.
const SMALL: u32 = 4096;
/// Files that the untar sequence makes in a directory.
const FILES_PER_DIR: u64 = 32;

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Op {
    /// NULL.
    Null,
    /// GETATTR of the caller's own file.
    Getattr,
    /// LOOKUP of the caller's own file.
    Lookup,
    /// ACCESS of the caller's own file.
    Access,
    /// CREATE, then REMOVE, of a new name in the connection's own directory.
    CreateRemove,
    /// 4 KiB READs over the caller's own 32 KiB file.
    Read4k,
    /// 4 KiB UNSTABLE WRITEs over the caller's own 32 KiB file.
    Write4k,
    /// The same, FILE_SYNC.
    Write4kSync,
    /// What Linux sends for each file of a tar archive: LOOKUP (absent), exclusive CREATE, SETATTR of mode and owner, one
    /// FILE_SYNC WRITE, SETATTR of the times; a MKDIR every 32 files.
    Untar,
    /// 1 MiB UNSTABLE WRITEs through new 64 MiB files, each ended by COMMIT; one file a connection at a time.
    Seqwrite,
    /// 1 MiB READs through a 64 MiB file, again and again; one file a connection.
    Seqread,
    /// READDIRPLUS through a directory of 10,000 entries, again and again.
    Readdirplus,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => write!(f, "{self:?}"),
        }
    }
}

impl Op {
    /// Whether the callers of a connection share one file, so that one task runs them all.
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Seqwrite | Self::Seqread)
    }

    /// What the operation moves, where that is not calls.
    pub const fn unit(self) -> Option<&'static str> {
        match self {
            Self::Seqwrite | Self::Seqread => Some("MiB"),
            Self::Readdirplus => Some("entry"),
            _ => None,
        }
    }

    /// Whether each connection needs a directory of its own.
    pub const fn needs_dir(self) -> bool {
        matches!(self, Self::CreateRemove | Self::Untar)
    }

    /// Whether each caller needs a file of its own.
    pub const fn needs_file(self) -> bool {
        !matches!(self, Self::Null | Self::CreateRemove | Self::Untar | Self::Readdirplus)
    }

    /// Bytes that the caller's own file begins with.
    pub const fn file_len(self) -> u64 {
        match self {
            Self::Read4k | Self::Write4k | Self::Write4kSync => SMALL_FILE,
            Self::Seqread => LARGE_FILE_MIB * MIB as u64,
            _ => 0,
        }
    }
}

/// One of those that call.
#[derive(Debug, Clone)]
pub struct Caller {
    pub client: Client,
    pub meter: Rc<Meter>,
    pub place: Place,
    pub id: usize,
    /// Calls that a stream keeps in flight.
    pub width: usize,
}

impl Caller {
    /// Calls until the run ends.
    pub async fn run(self, op: Op) -> Result<(), Error> {
        let mut round = 0;
        while self.meter.running() {
            match op {
                Op::Null => self.meter.timed(self.client.null()).await?,
                Op::Getattr => self.getattr().await?,
                Op::Lookup => self.lookup().await?,
                Op::Access => self.access().await?,
                Op::CreateRemove => self.create_remove(round).await?,
                Op::Read4k => self.read(round).await?,
                Op::Write4k => self.write(round, StableHow::Unstable).await?,
                Op::Write4kSync => self.write(round, StableHow::FileSync).await?,
                Op::Untar => self.untar(round).await?,
                Op::Seqwrite => self.seqwrite(round).await?,
                Op::Seqread => self.stream(Proc3::Read).await?,
                Op::Readdirplus => self.readdirplus().await?,
            }
            round += 1;
        }
        Ok(())
    }

    async fn getattr(&self) -> Result<(), Error> {
        let res = self.meter.timed(self.client.getattr(&self.place.file)).await?;
        must(Proc3::Getattr, res).map(|_| ())
    }

    async fn lookup(&self) -> Result<(), Error> {
        let res = self.meter.timed(self.client.lookup(&self.place.file_dir, &self.place.name)).await?;
        must(Proc3::Lookup, res).map(|_| ())
    }

    async fn access(&self) -> Result<(), Error> {
        let res = self.meter.timed(self.client.access(&self.place.file, access::ALL)).await?;
        must(Proc3::Access, res).map(|_| ())
    }

    async fn create_remove(&self, round: u64) -> Result<(), Error> {
        let name = format!("new-{}-{round}", self.id);
        let (dir, name) = (&self.place.dir, name.as_bytes());
        let how = CreateHow::Guarded(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
        must(Proc3::Create, self.meter.timed(self.client.create(dir, name, how)).await?)?;
        must(Proc3::Remove, self.meter.timed(self.client.remove(dir, name)).await?).map(|_| ())
    }

    /// Where round `round` of small reads and writes is.
    const fn offset(round: u64) -> u64 {
        round * SMALL as u64 % SMALL_FILE
    }

    async fn read(&self, round: u64) -> Result<(), Error> {
        let read = self.client.read(&self.place.file, Self::offset(round), SMALL);
        let got = must(Proc3::Read, self.meter.timed(read).await?)?;
        if got.data.len() != SMALL as usize {
            return Err(Error::Protocol("READ within the file was short"));
        }
        Ok(())
    }

    async fn write(&self, round: u64, stable: StableHow) -> Result<(), Error> {
        let data = [0xa5; SMALL as usize];
        let write = self.client.write(&self.place.file, Self::offset(round), &data, stable);
        let done = must(Proc3::Write, self.meter.timed(write).await?)?;
        if done.count != SMALL || done.committed < stable {
            return Err(Error::Protocol("WRITE wrote less, or less durably, than it was asked"));
        }
        Ok(())
    }

    async fn untar(&self, round: u64) -> Result<(), Error> {
        let (client, meter) = (&self.client, &self.meter);
        // Each caller unpacks a tree of its own.
        let dir_name = format!("tree-{}-{}", self.id, round);
        let dir = meter.timed(make_dir(client, &self.place.dir, dir_name.as_bytes())).await?;
        for n in 0..FILES_PER_DIR {
            let name = format!("source-{n}.c");
            let name = name.as_bytes();
            match meter.timed(client.lookup(&dir, name)).await? {
                Res3::Err(NfsStat3::NOENT, _) => {}
                other => {
                    let status = other.status();
                    return Err(Error::Nfs { proc: Proc3::Lookup, status });
                }
            }
            let mut verf = [0; 8];
            verf.copy_from_slice(&(round * FILES_PER_DIR + n).to_be_bytes());
            let how = CreateHow::Exclusive(verf);
            let made = must(Proc3::Create, meter.timed(client.create(&dir, name, how)).await?)?;
            let file = made.object.ok_or(Error::Protocol("CREATE returned no handle"))?;
            let owner = Sattr3 { mode: Some(0o644), uid: Some(0), gid: Some(0), ..Sattr3::default() };
            must(Proc3::Setattr, meter.timed(client.setattr(&file, owner, None)).await?)?;
            let data = [b'x'; SMALL as usize];
            let write = client.write(&file, 0, &data, StableHow::FileSync);
            must(Proc3::Write, meter.timed(write).await?)?;
            let then = TimeHow::Client(NfsTime3 { seconds: 1_000_000_000, nseconds: 0 });
            let times = Sattr3 { atime: then, mtime: then, ..Sattr3::default() };
            must(Proc3::Setattr, meter.timed(client.setattr(&file, times, None)).await?)?;
        }
        Ok(())
    }

    /// One new file, written through and committed.
    async fn seqwrite(&self, round: u64) -> Result<(), Error> {
        let name = format!("stream-{}-{}", self.id, round % 2);
        let file = make_file(&self.client, &self.place.file_dir, name.as_bytes()).await?;
        let mut caller = self.clone();
        caller.place.file = file;
        caller.stream(Proc3::Write).await?;
        must(Proc3::Commit, self.meter.timed(self.client.commit(&file, 0, 0)).await?)?;
        must(Proc3::Remove, self.client.remove(&self.place.file_dir, name.as_bytes()).await?).map(|_| ())
    }

    /// One pass over the caller's file, MiB after MiB, `width` calls in flight.
    async fn stream(&self, proc: Proc3) -> Result<(), Error> {
        let next = Rc::new(Cell::new(0));
        let mut lanes = JoinSet::new();
        for _ in 0..self.width {
            lanes.spawn_local(self.clone().lane(proc, Rc::clone(&next)));
        }
        while let Some(ended) = lanes.join_next().await {
            ended.map_err(|_| Error::Protocol("a lane panicked"))??;
        }
        Ok(())
    }

    async fn lane(self, proc: Proc3, next: Rc<Cell<u64>>) -> Result<(), Error> {
        let data = vec![0x3c; if proc == Proc3::Write { MIB as usize } else { 0 }];
        while self.meter.running() && next.get() < LARGE_FILE_MIB {
            let at = next.get() * u64::from(MIB);
            next.set(next.get() + 1);
            let file = &self.place.file;
            let moved = if proc == Proc3::Write {
                let write = self.client.write(file, at, &data, StableHow::Unstable);
                must(proc, self.meter.timed(write).await?)?.count as usize
            } else {
                must(proc, self.meter.timed(self.client.read(file, at, MIB)).await?)?.data.len()
            };
            if moved != MIB as usize {
                return Err(Error::Protocol("a READ or WRITE of 1 MiB moved less"));
            }
            self.meter.moved(1);
        }
        Ok(())
    }

    async fn readdirplus(&self) -> Result<(), Error> {
        let (mut cookie, mut verf) = (0, CookieVerf::default());
        while self.meter.running() {
            let call = self.client.readdirplus(&self.place.dir, cookie, verf, DIRCOUNT, MAXCOUNT);
            let page = must(Proc3::Readdirplus, self.meter.timed(call).await?)?;
            self.meter.moved(page.entries.len() as u64);
            verf = page.verf;
            match page.entries.last() {
                Some(last) if !page.eof => cookie = last.cookie,
                _ => break,
            }
        }
        Ok(())
    }
}
