//! The disk as a server's files.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};
use std::sync::Arc;

use rustix::io::Errno;

use super::bytes::PAGE;
use super::names::{Attr, Disk, Ino, Outcome, ROOT};
use super::power::{Kind, Power};
use crate::files::{Directory, File, Files, Open, Space, Stat};

/// Room that the disk has, in bytes: more than any test writes.
const TOTAL: u64 = 64 << 30;

/// Files on a disk in memory, as long as there is power.
#[derive(Debug, Clone)]
pub struct Memory(pub Arc<Power>);

#[derive(Debug)]
struct Opened {
    power: Arc<Power>,
    ino: Ino,
}

fn stat(of: &Attr) -> Stat {
    Stat { len: of.size, used: of.pages * PAGE as u64 }
}

/// A path's names from the root on.
fn names(path: &Path) -> Vec<&OsStr> {
    let name = |part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// Where a path leads.
fn walk<'a>(disk: &mut Disk, path: impl IntoIterator<Item = &'a OsStr>) -> Outcome<Ino> {
    path.into_iter().try_fold(ROOT, |at, name| disk.lookup(at, name.as_bytes()))
}

/// The directory that a path's last name stands in, and that name.
fn parent<'a>(disk: &mut Disk, path: &'a Path) -> Outcome<(Ino, &'a [u8])> {
    let names = names(path);
    let (last, above) = names.split_last().ok_or(Errno::INVAL)?;
    Ok((walk(disk, above.iter().copied())?, last.as_bytes()))
}

impl Memory {
    fn look<T>(&self, operation: impl FnOnce(&mut Disk) -> Outcome<T>) -> io::Result<T> {
        Ok(self.0.run(Kind::Look, operation)?)
    }

    fn change<T>(&self, operation: impl FnOnce(&mut Disk) -> Outcome<T>) -> io::Result<T> {
        Ok(self.0.run(Kind::Change, operation)?)
    }

    fn opened(&self, ino: Ino) -> Arc<Opened> {
        Arc::new(Opened { power: Arc::clone(&self.0), ino })
    }
}

impl Files for Memory {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let there = self.look(|disk| {
            let ino = walk(disk, names(path))?;
            let attr = disk.attr(ino)?;
            if attr.dir { Err(Errno::ISDIR) } else { Ok(attr) }
        });
        let ino = match there {
            Ok(attr) if how == Open::Empty && attr.size > 0 => {
                self.change(|disk| disk.resize(attr.ino, 0))?;
                attr.ino
            }
            Ok(attr) => attr.ino,
            Err(e) if e.kind() == io::ErrorKind::NotFound && how != Open::Existing => {
                self.change(|disk| {
                    let (dir, name) = parent(disk, path)?;
                    disk.make(dir, name, 0o600, false)
                })?
            }
            Err(e) => return Err(e),
        };
        Ok(self.opened(ino))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Directory>> {
        let ino = self.look(|disk| {
            let ino = walk(disk, names(path))?;
            if disk.attr(ino)?.dir { Ok(ino) } else { Err(Errno::NOTDIR) }
        })?;
        Ok(self.opened(ino))
    }

    fn make_dirs(&self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path) {
            at = match self.look(|disk| disk.lookup(at, name.as_bytes())) {
                Ok(there) => there,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.change(|disk| disk.make(at, name.as_bytes(), 0o755, true))?
                }
                Err(e) => return Err(e),
            };
        }
        Ok(())
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let listed = self.look(|disk| {
            let ino = walk(disk, names(dir))?;
            disk.list(ino)
        })?;
        Ok(listed.into_iter().map(|l| OsString::from_vec(l.name)).collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.look(|disk| walk(disk, names(path)))?;
        self.change(|disk| {
            let (dir, name) = parent(disk, path)?;
            disk.remove(dir, name, false)
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.look(|disk| walk(disk, names(path)))?;
        self.change(|disk| {
            let (dir, name) = parent(disk, path)?;
            disk.remove(dir, name, true)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|disk| {
            let (from, to) = (parent(disk, from)?, parent(disk, to)?);
            disk.rename(from, to, true)
        })
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.look(|disk| {
            let ino = walk(disk, names(path))?;
            Ok(stat(&disk.attr(ino)?))
        })
    }
}

impl Opened {
    fn look<T>(&self, operation: impl FnOnce(&mut Disk) -> Outcome<T>) -> io::Result<T> {
        Ok(self.power.run(Kind::Look, operation)?)
    }

    fn change<T>(&self, operation: impl FnOnce(&mut Disk) -> Outcome<T>) -> io::Result<T> {
        Ok(self.power.run(Kind::Change, operation)?)
    }
}

impl Opened {
    fn durable(&self) -> io::Result<()> {
        Ok(self.power.run(Kind::Sync(self.ino), |disk| disk.sync(self.ino))?)
    }
}

impl File for Opened {
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let got = self.power.run(Kind::Read, |disk| disk.read(self.ino, offset, to.len()))?;
        to[..got.len()].copy_from_slice(&got);
        Ok(got.len())
    }

    fn read_cached_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let cached = self.look(|disk| Ok(disk.is_cached()))?;
        if cached { self.read_at(to, offset) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        self.change(|disk| disk.write(self.ino, offset, data))?;
        Ok(data.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|disk| disk.resize(self.ino, len))
    }

    fn allocate(&self, offset: u64, len: u64, keep_len: bool) -> io::Result<()> {
        if keep_len {
            // The disk is never full: there is nothing to reserve.
            return Ok(());
        }
        self.change(|disk| {
            let size = disk.attr(self.ino)?.size;
            disk.resize(self.ino, size.max(offset.saturating_add(len)))
        })
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.look(|disk| disk.seek(self.ino, offset, false))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.durable()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.durable()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.look(|disk| Ok(stat(&disk.attr(self.ino)?)))
    }
}

impl Directory for Opened {
    fn sync(&self) -> io::Result<()> {
        self.durable()
    }

    fn sync_file_system(&self) -> io::Result<()> {
        self.change(Disk::sync_everything)
    }

    fn space(&self) -> io::Result<Space> {
        self.look(|_| Ok(Space { total: TOTAL, free: TOTAL }))
    }
}
