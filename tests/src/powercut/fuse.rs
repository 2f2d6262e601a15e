//! The disk as the kernel asks for it. No thought of its own: every request is one operation of [`Disk`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use rustix::fs::FallocateFlags;

use slice_system::disk::bytes::PAGE;
use slice_system::disk::names::{Attr, Disk, Listed, Outcome};
use slice_system::disk::{Kind, Power};

/// Only the kernel changes anything here, so that it may believe what it knows.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);

const SECTOR: u64 = 512;

/// Room that the disk has, in pages: more than any test writes.
const PAGES: u64 = 16 << 20;

/// `lseek`'s SEEK_DATA and SEEK_HOLE (linux/fs.h).
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// A session's file system.
#[derive(Debug)]
pub(super) struct Fuse {
    power: Arc<Power>,
    /// How files are open: with the kernel's cache, or without one.
    open: FopenFlags,
    /// Directories as they were when they were opened: a name that is removed meanwhile moves no other.
    listings: Mutex<HashMap<u64, Vec<Listed>>>,
    next_listing: AtomicU64,
}

impl Fuse {
    /// Without a cache every read comes to the disk.
    pub(super) fn new(power: Arc<Power>, cached: bool) -> Self {
        let open = if cached { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::FOPEN_DIRECT_IO };
        Self { power, open, listings: Mutex::default(), next_listing: AtomicU64::new(1) }
    }

    fn look<T>(&self, operation: impl FnOnce(&mut Disk) -> Outcome<T>) -> Result<T, Errno> {
        self.power.run(Kind::Look, operation).map_err(errno)
    }

    fn change<T>(&self, operation: impl FnOnce(&mut Disk) -> Outcome<T>) -> Result<T, Errno> {
        self.power.run(Kind::Change, operation).map_err(errno)
    }

    fn done(&self, reply: ReplyEmpty, operation: impl FnOnce(&mut Disk) -> Outcome<()>) {
        match self.change(operation) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn sync(&self, ino: INodeNo, reply: ReplyEmpty) {
        match self.power.run(Kind::Sync(ino.0), |disk| disk.sync(ino.0)).map_err(errno) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn entry(reply: ReplyEntry, found: Result<Attr, Errno>) {
        match found {
            Ok(found) => reply.entry(&FOR_EVER, &attr(found), Generation(0)),
            Err(error) => reply.error(error),
        }
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn kind(dir: bool) -> FileType {
    if dir { FileType::Directory } else { FileType::RegularFile }
}

fn attr(found: Attr) -> FileAttr {
    let then = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(found.ino),
        size: found.size,
        blocks: found.pages * (PAGE as u64 / SECTOR),
        atime: then,
        mtime: then,
        ctime: then,
        crtime: then,
        kind: kind(found.dir),
        perm: found.mode as u16,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

impl Filesystem for Fuse {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let find = |disk: &mut Disk| disk.lookup(parent.0, name.as_bytes()).and_then(|ino| disk.attr(ino));
        Self::entry(reply, self.look(find));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.look(|disk| disk.attr(ino.0)) {
            Ok(found) => reply.attr(&FOR_EVER, &attr(found)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = |disk: &mut Disk| {
            if let Some(mode) = mode {
                disk.chmod(ino.0, mode)?;
            }
            if let Some(size) = size {
                disk.resize(ino.0, size)?;
            }
            disk.attr(ino.0)
        };
        match self.change(set) {
            Ok(found) => reply.attr(&FOR_EVER, &attr(found)),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let make = |disk: &mut Disk| {
            let ino = disk.make(parent.0, name.as_bytes(), mode & !umask, true)?;
            disk.attr(ino)
        };
        Self::entry(reply, self.change(make));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(reply, |disk| disk.remove(parent.0, name.as_bytes(), false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(reply, |disk| disk.remove(parent.0, name.as_bytes(), true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let replace = flags.is_empty();
        let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
        self.done(reply, |disk| disk.rename(from, to, replace));
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let link = |disk: &mut Disk| {
            disk.link(ino.0, newparent.0, newname.as_bytes())?;
            disk.attr(ino.0)
        };
        Self::entry(reply, self.change(link));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), self.open);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.power.run(Kind::Read, |disk| disk.read(ino.0, offset, size as usize)).map_err(errno) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.change(|disk| disk.write(ino.0, offset, data)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // close() writes nothing.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync(ino, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync(ino, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.look(|disk| disk.list(ino.0)) {
            Ok(listing) => {
                let number = self.next_listing.fetch_add(1, Ordering::Relaxed);
                self.listings.lock().insert(number, listing);
                reply.opened(FileHandle(number), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listings = self.listings.lock();
        let listing = listings.get(&fh.0).map(Vec::as_slice).unwrap_or_default();
        for (number, listed) in (0u64..).zip(listing).skip(offset as usize) {
            if reply.add(INodeNo(listed.ino), number + 1, kind(listed.dir), OsStr::from_bytes(&listed.name)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.look(|_| Ok(())) {
            Ok(()) => reply.statfs(PAGES, PAGES, PAGES, PAGES, PAGES, PAGE as u32, 255, PAGE as u32),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let make = |disk: &mut Disk| {
            let ino = disk.make(parent.0, name.as_bytes(), mode & !umask, false)?;
            disk.attr(ino)
        };
        match self.change(make) {
            Ok(made) => {
                reply.created(&FOR_EVER, &attr(made), Generation(0), FileHandle(0), self.open);
            }
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let flags = FallocateFlags::from_bits_retain(mode as u32);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if flags == punch {
            self.done(reply, |disk| disk.punch(ino.0, offset, length));
        } else if flags == FallocateFlags::KEEP_SIZE {
            // The disk is never full: there is nothing to reserve.
            reply.ok();
        } else if flags.is_empty() {
            self.done(reply, |disk| {
                let size = disk.attr(ino.0)?.size;
                disk.resize(ino.0, size.max(offset.saturating_add(length)))
            });
        } else {
            reply.error(Errno::EOPNOTSUPP);
        }
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let found = match (whence, u64::try_from(offset)) {
            (SEEK_DATA | SEEK_HOLE, Ok(offset)) => {
                self.look(|disk| disk.seek(ino.0, offset, whence == SEEK_DATA))
            }
            _ => Err(Errno::EINVAL),
        };
        match found {
            Ok(at) => reply.offset(at as i64),
            Err(error) => reply.error(error),
        }
    }
}
