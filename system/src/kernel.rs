//! The kernel's files.

use crate::files::{Directory, File, Files, Open, Space, Stat};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, IoSliceMut, ReadWriteFlags};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// The kernel's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernel;

#[derive(Debug)]
struct KernelFile(OwnedFd);

#[derive(Debug)]
struct KernelDirectory(OwnedFd);

fn stat(of: &rustix::fs::Stat) -> Stat {
    Stat {
        len: u64::try_from(of.st_size).unwrap_or(0),
        // `st_blocks` counts units of 512 bytes whatever the file system's blocks are.
        used: u64::try_from(of.st_blocks).unwrap_or(0).saturating_mul(512),
    }
}

impl File for KernelFile {
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.0, to, offset)?)
    }

    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        match rustix::io::preadv2(&self.0, &mut [IoSliceMut::new(to)], offset, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Err(ErrorKind::Unsupported.into()),
            other => Ok(other?),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn read_cached_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwrite(&self.0, data, offset)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.0, len)?)
    }

    fn allocate(&self, offset: u64, len: u64, keep_len: bool) -> io::Result<()> {
        let flags = if keep_len { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        Ok(rustix::fs::fallocate(&self.0, flags, offset, len)?)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        Ok(rustix::fs::seek(&self.0, SeekFrom::Hole(offset))?)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(stat(&rustix::fs::fstat(&self.0)?))
    }
}

impl Directory for KernelDirectory {
    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }

    fn space(&self) -> io::Result<Space> {
        let vfs = rustix::fs::fstatvfs(&self.0)?;
        Ok(Space {
            total: vfs.f_blocks.saturating_mul(vfs.f_frsize),
            free: vfs.f_bavail.saturating_mul(vfs.f_frsize),
        })
    }
}

impl Files for Kernel {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let make = match how {
            Open::Existing => OFlags::empty(),
            Open::Create => OFlags::CREATE,
            Open::Empty => OFlags::CREATE | OFlags::TRUNC,
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC | make;
        Ok(Arc::new(KernelFile(rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)?)))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Directory>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Arc::new(KernelDirectory(rustix::fs::openat(CWD, path, flags, Mode::empty())?)))
    }

    fn make_dirs(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(CWD, path, AtFlags::empty())?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::rename(from, to)?)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(stat(&rustix::fs::statat(CWD, path, AtFlags::empty())?))
    }
}
