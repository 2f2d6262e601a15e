//! Sends one request and checks its reply: status, sizes, contents.

use super::files;
use super::mix::{BLOCK_KIB, FILES_PER_DIR, Request};
use super::set::{File, Set};
use crate::client::{Client, Fh, Listed};
use crate::content::{self, KIB};
use crate::tally::Tally;
use slice_proto::nfs3::{
    CookieVerf, CreateHow, FType3, Fattr3, NfsStat3, PostOpAttr, Proc3, Res3, Sattr3, StableHow, TimeHow,
    access,
};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Files that are looked at for one that nobody uses, before a request waits for one.
const LOOK_FOR_FREE: usize = 8;
/// KiB by which a file may have grown before a SETATTR cuts it back, so that a long run stays within its set.
const MAX_GROWTH_KIB: usize = 64;
/// Counts of READDIR and READDIRPLUS: a directory of thirty files fits.
const DIRCOUNT: u32 = 8 << 10;
const MAXCOUNT: u32 = 32 << 10;
const NO_FILE: &str = "there is no file";
const VERIFIER: &str = "the write verifier has changed: the server may have lost what it had not committed";

/// What all requests share.
#[derive(Debug)]
pub struct World {
    /// The files.
    pub set: Rc<Set>,
    /// What is counted.
    pub tally: Tally,
    /// Most bytes of a READ, as FSINFO says.
    pub rtmax: u32,
    /// Most bytes of a WRITE, as FSINFO says.
    pub wtmax: u32,
}

/// What was wrong with a reply.
type Checked = Result<(), String>;

fn ok<O, F>(res: Res3<O, F>) -> Result<O, String> {
    res.into_result().map_err(|status| format!("{status}"))
}

fn sent<T>(answer: Result<T, crate::Error>) -> Result<T, String> {
    answer.map_err(|e| e.to_string())
}

impl File {
    /// Attributes must be this file's, with the size that it has.
    fn check(&self, attr: &Fattr3) -> Checked {
        let size = self.size();
        if attr.ftype != FType3::Reg || attr.fileid != self.fileid {
            Err("attributes of another object".into())
        } else if attr.size != size && !self.unsure {
            Err(format!(
                "size is {} too {}",
                attr.size.abs_diff(size),
                if attr.size < size { "small" } else { "large" }
            ))
        } else {
            Ok(())
        }
    }

    fn check_if(&self, attr: PostOpAttr) -> Checked {
        attr.map_or(Ok(()), |attr| self.check(&attr))
    }
}

impl World {
    /// Sends `request`, which was due then, checks its reply, counts it.
    pub async fn issue(&self, request: Request, due: Instant) {
        // There may be nothing to remove, or too much: the other of the two keeps the set as it is.
        let spare = self.set.spare.borrow().len();
        let proc = match request.proc {
            Proc3::Remove if spare == 0 => Proc3::Create,
            Proc3::Create if spare > 64 + 2 * self.set.spares_made.get() => Proc3::Remove,
            proc => proc,
        };
        let outcome = match self.set.site.client() {
            Ok(client) => self.run(client, proc, request).await,
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(()) => self.tally.answered(proc, due.elapsed()),
            Err(what) => self.tally.wrong(proc, what),
        }
    }

    async fn run(&self, c: &Client, proc: Proc3, r: Request) -> Checked {
        match proc {
            Proc3::Lookup => self.lookup(c, r).await,
            Proc3::Read => self.read(c, r).await,
            Proc3::Write => self.write(c, r).await,
            Proc3::Readdirplus | Proc3::Readdir => self.list(c, proc, r).await,
            Proc3::Readlink => self.readlink(c, r).await,
            Proc3::Commit => self.commit(c, r).await,
            Proc3::Create => self.create(c, r).await,
            Proc3::Remove => self.remove(c, r).await,
            Proc3::Setattr => self.setattr(c, r).await,
            Proc3::Getattr => {
                let file = self.shared(r).await?;
                file.check(&ok(sent(c.getattr(&file.fh).await)?)?)
            }
            Proc3::Access => {
                let file = self.shared(r).await?;
                let got = ok(sent(c.access(&file.fh, access::ALL).await)?)?;
                if got.access & access::READ == 0 {
                    return Err("reading is not permitted".into());
                }
                file.check_if(got.attr)
            }
            Proc3::Fsstat => {
                let got = ok(sent(c.fsstat(&self.set.site.dir).await)?)?;
                if got.tbytes < got.fbytes { Err("more free space than there is".into()) } else { Ok(()) }
            }
            Proc3::Fsinfo => {
                let got = ok(sent(c.fsinfo(&self.set.site.dir).await)?)?;
                if got.rtmax == self.rtmax && got.wtmax == self.wtmax {
                    Ok(())
                } else {
                    Err("limits have changed".into())
                }
            }
            other => Err(format!("{other} is not of the mix")),
        }
    }

    /// Candidates for a request: the drawn file and those behind it.
    fn near(&self, r: Request) -> Vec<(usize, Arc<RwLock<File>>)> {
        let files = self.set.files.borrow();
        let n = files.len().max(1);
        let first = (r.object % n as u64) as usize;
        let places = (0..LOOK_FOR_FREE.min(n)).map(|i| (first + i) % n);
        places.filter_map(|at| Some((at, Arc::clone(files.get(at)?)))).collect()
    }

    /// A file that nobody changes meanwhile.
    async fn shared(&self, r: Request) -> Result<OwnedRwLockReadGuard<File>, String> {
        let near = self.near(r);
        if let Some(free) = near.iter().find_map(|(_, f)| Arc::clone(f).try_read_owned().ok()) {
            return Ok(free);
        }
        let (_, first) = near.into_iter().next().ok_or(NO_FILE)?;
        Ok(first.read_owned().await)
    }

    /// A file that nobody uses meanwhile, and its place.
    async fn alone(&self, r: Request) -> Result<(usize, OwnedRwLockWriteGuard<File>), String> {
        let near = self.near(r);
        let free = |(at, f): &(usize, Arc<RwLock<File>>)| Some((*at, Arc::clone(f).try_write_owned().ok()?));
        if let Some(free) = near.iter().find_map(free) {
            return Ok(free);
        }
        let (at, first) = near.into_iter().next().ok_or(NO_FILE)?;
        Ok((at, first.write_owned().await))
    }

    /// A directory, and its number.
    fn dir(&self, r: Request) -> Result<(usize, Fh), String> {
        let dirs = self.set.dirs.borrow();
        let at = (r.object % dirs.len().max(1) as u64) as usize;
        Ok((at, *dirs.get(at).ok_or("there is no directory")?))
    }

    async fn lookup(&self, c: &Client, r: Request) -> Checked {
        if r.miss {
            let (_, dir) = self.dir(r)?;
            let name = format!("missing-{:x}", r.place);
            return match sent(c.lookup(&dir, name.as_bytes()).await)? {
                Res3::Err(NfsStat3::NOENT, _) => Ok(()),
                other => Err(format!("{} for a name that is not there", other.status())),
            };
        }
        let file = self.shared(r).await?;
        let number = (file.index / FILES_PER_DIR) as usize;
        let dir = self.set.dirs.borrow().get(number).copied().ok_or("there is no directory")?;
        let found = ok(sent(c.lookup(&dir, files::name(file.index).as_bytes()).await)?)?;
        match found.attr {
            Some(attr) => file.check(&attr),
            None if found.object == file.fh => Ok(()),
            None => Err("the handle of another object".into()),
        }
    }

    async fn read(&self, c: &Client, r: Request) -> Checked {
        let file = self.shared(r).await?;
        let have = file.generations.len();
        let want = have.min(r.kib as usize);
        // A whole number of blocks from the beginning, such that there is as much as is wanted.
        let first = choose_block(r.place, have - want);
        let (from, end) = ((first * KIB) as u64, ((first + want) * KIB) as u64);
        // All that a client asks for, even past the end: how much there is, it learns from the reply.
        let asked = from + u64::from(r.kib) * KIB as u64;
        let (mut at, mut data) = (from, Vec::with_capacity(want * KIB));
        loop {
            let count = u32::try_from(asked - at).unwrap_or(u32::MAX).min(self.rtmax);
            let got = ok(sent(c.read(&file.fh, at, count).await)?)?;
            at += got.data.len() as u64;
            data.extend_from_slice(&got.data);
            if let Some(attr) = got.attr {
                file.check(&attr)?;
            }
            if file.unsure {
                return Ok(());
            }
            if got.eof != (at >= file.size()) {
                return Err(if got.eof {
                    "the end of the file before its size"
                } else {
                    "no end of the file at its size"
                }
                .into());
            }
            if at >= end {
                break;
            }
            if got.data.is_empty() {
                return Err("no bytes and no end of the file".into());
            }
        }
        let generations = file.generations.get(first..first + want).unwrap_or_default();
        match content::wrong_at(file.key, first as u64, generations, &data) {
            None => Ok(()),
            Some(_) => Err("wrong content".into()),
        }
    }

    async fn write(&self, c: &Client, r: Request) -> Checked {
        let (place, mut file) = self.alone(r).await?;
        let (have, kib) = (file.generations.len(), r.kib as usize);
        let first = if r.append { have } else { choose_block(r.place, have.saturating_sub(kib)) };
        file.writes += 1;
        let number = file.writes;
        let data = content::bytes(file.key, first as u64, &vec![number; kib]);
        let was_unsure = std::mem::replace(&mut file.unsure, true);
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let piece = rest.get(..self.wtmax as usize).unwrap_or(rest);
            let at = (first * KIB + done) as u64;
            let got = ok(sent(c.write(&file.fh, at, piece, StableHow::Unstable).await)?)?;
            if got.count == 0 || got.count as usize > piece.len() {
                return Err(format!("{} bytes of {} written", got.count, piece.len()));
            }
            done += got.count as usize;
            if done == data.len() {
                let end = (first + kib).max(have);
                file.generations.resize(end, number);
                if let Some(written) = file.generations.get_mut(first..first + kib) {
                    written.fill(number);
                }
                file.unsure = was_unsure;
                file.check_if(got.wcc.after)?;
            }
            if got.committed == StableHow::Unstable {
                match file.unstable.replace(got.verf) {
                    None => self.set.dirty.borrow_mut().push(place),
                    Some(before) if before == got.verf => {}
                    Some(_) => return Err(VERIFIER.into()),
                }
            }
        }
        Ok(())
    }

    async fn commit(&self, c: &Client, r: Request) -> Checked {
        let next = {
            let mut dirty = self.set.dirty.borrow_mut();
            let n = dirty.len().max(1);
            let at = (r.place % n as u64) as usize;
            if dirty.is_empty() { None } else { Some(dirty.swap_remove(at)) }
        };
        let dirty = next.and_then(|at| self.set.files.borrow().get(at).map(Arc::clone));
        let mut file = match dirty {
            Some(file) => file.write_owned().await,
            None => self.alone(r).await?.1,
        };
        let got = ok(sent(c.commit(&file.fh, 0, 0).await)?)?;
        match file.unstable.take() {
            Some(before) if before != got.verf => Err(VERIFIER.into()),
            _ => file.check_if(got.wcc.after),
        }
    }

    async fn readlink(&self, c: &Client, r: Request) -> Checked {
        let link = {
            let links = self.set.links.borrow();
            links
                .get((r.object % links.len().max(1) as u64) as usize)
                .map(Rc::clone)
                .ok_or("there is no link")?
        };
        let got = ok(sent(c.readlink(&link.fh).await)?)?;
        if got.target == link.target.as_bytes() { Ok(()) } else { Err("another target".into()) }
    }

    /// A directory's first page: every planned file of it must be there, nothing twice.
    async fn list(&self, c: &Client, proc: Proc3, r: Request) -> Checked {
        let (number, dir) = self.dir(r)?;
        let page = match proc {
            Proc3::Readdir => ok(sent(c.readdir(&dir, 0, CookieVerf::default(), DIRCOUNT).await)?)?,
            _ => ok(sent(c.readdirplus(&dir, 0, CookieVerf::default(), DIRCOUNT, MAXCOUNT).await)?)?,
        };
        let names: HashSet<&[u8]> = page.entries.iter().map(|e| e.name.as_slice()).collect();
        if names.len() != page.entries.len() {
            return Err("a name twice".into());
        }
        if page.entries.iter().any(|e: &Listed| e.attr.is_some_and(|a| a.fileid != e.fileid)) {
            return Err("an entry with another's attributes".into());
        }
        let first = number as u64 * FILES_PER_DIR;
        let planned = first..(first + FILES_PER_DIR).min(self.set.count.get());
        if page.eof {
            for index in planned {
                if !names.contains(files::name(index).as_bytes()) {
                    return Err("a file is missing".into());
                }
            }
        } else if names.is_empty() {
            return Err("no entry and no end".into());
        }
        Ok(())
    }

    async fn create(&self, c: &Client, r: Request) -> Checked {
        let (number, dir) = self.dir(r)?;
        let name = self.set.new_name();
        let how = CreateHow::Guarded(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
        let made = ok(sent(c.create(&dir, name.as_bytes(), how).await)?)?;
        if made.attr.is_some_and(|a| a.size != 0 || a.ftype != FType3::Reg) {
            return Err("what was made is no empty file".into());
        }
        self.set.spare.borrow_mut().push((number, name));
        Ok(())
    }

    async fn remove(&self, c: &Client, r: Request) -> Checked {
        let (number, name) = {
            let mut spare = self.set.spare.borrow_mut();
            let n = spare.len();
            if n == 0 {
                return Err("there is nothing to remove".into());
            }
            spare.swap_remove((r.place % n as u64) as usize)
        };
        let dir = self.set.dirs.borrow().get(number).copied().ok_or("there is no directory")?;
        ok(sent(c.remove(&dir, name.as_bytes()).await)?).map(|_| ())
    }

    /// Sets mode and time; of a file that has grown, the size with which it began.
    async fn setattr(&self, c: &Client, r: Request) -> Checked {
        let (_, mut file) = self.alone(r).await?;
        let cut = file.generations.len() > file.began_kib as usize + MAX_GROWTH_KIB;
        let attr = if cut {
            Sattr3 { size: Some(u64::from(file.began_kib) * KIB as u64), ..Sattr3::default() }
        } else {
            let mode = if r.place.is_multiple_of(2) { 0o644 } else { 0o664 };
            Sattr3 { mode: Some(mode), mtime: TimeHow::ServerTime, ..Sattr3::default() }
        };
        let was_unsure = std::mem::replace(&mut file.unsure, true);
        let got = ok(sent(c.setattr(&file.fh, attr, None).await)?)?;
        if cut {
            let began = file.began_kib as usize;
            file.generations.truncate(began);
        }
        file.unsure = was_unsure;
        if let (Some(mode), Some(after)) = (attr.mode, got.after)
            && after.mode & 0o777 != mode
        {
            return Err(format!("mode {:o} for {mode:o}", after.mode));
        }
        file.check_if(got.after)
    }
}

/// A KiB at which a block begins, at most `last`.
fn choose_block(draw: u64, last: usize) -> usize {
    let blocks = last / BLOCK_KIB as usize + 1;
    (draw % blocks as u64) as usize * BLOCK_KIB as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_chosen_block_leaves_room(draw: u64, have in 1usize..2000, want in 1usize..200) {
            let last = have.saturating_sub(want);
            let at = choose_block(draw, last);
            prop_assert!(at.is_multiple_of(8) && at <= last);
        }
    }
}
