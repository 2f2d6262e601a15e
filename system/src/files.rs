//! Files and directories: one method a system call, with the same promises. What POSIX says of fsync holds here: bytes are
//! durable after their file's, names after their directory's.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// What there must be of a file that is opened. All are opened for reading and writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// It is there.
    Existing,
    /// It is made if it is not there, readable by its owner alone. The directory must be there.
    Create,
    /// The same, and nothing is left of what was in it.
    Empty,
}

/// What a stat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its length in bytes.
    pub len: u64,
    /// Bytes of disk that it takes.
    pub used: u64,
}

/// A file system's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub total: u64,
    /// Bytes that are free for us.
    pub free: u64,
}

/// An open file; closed when it is dropped.
pub trait File: Debug + Send + Sync {
    /// Reads at a byte offset; how many bytes: fewer than asked for at the end of the file, and where a signal comes.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The same, without waiting for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if it would have to wait, [`ErrorKind::Unsupported`] if this file system cannot tell.
    fn read_cached_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at a byte offset; how many bytes.
    ///
    /// # Errors
    /// The system's.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize>;

    /// Cuts the file, or lets it grow by zeros, to a length in bytes.
    ///
    /// # Errors
    /// The system's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Allocates the blocks of a range of bytes. With `keep_len` the length stays, else the file ends at the range's end or
    /// behind it.
    ///
    /// # Errors
    /// The system's; `EOPNOTSUPP` if this file system cannot.
    fn allocate(&self, offset: u64, len: u64, keep_len: bool) -> io::Result<()>;

    /// Where the next hole at or behind a byte offset begins; the end of the file is one.
    ///
    /// # Errors
    /// The system's; `ENXIO` behind the end.
    fn next_hole(&self, offset: u64) -> io::Result<u64>;

    /// fdatasync: its bytes are durable, and its length.
    ///
    /// # Errors
    /// The system's: then bytes may be lost, and a later call may not say so.
    fn sync_data(&self) -> io::Result<()>;

    /// fsync: the same, and all else that is known of it but its name.
    ///
    /// # Errors
    /// As [`sync_data`](Self::sync_data).
    fn sync_all(&self) -> io::Result<()>;

    /// What it takes.
    ///
    /// # Errors
    /// The system's.
    fn stat(&self) -> io::Result<Stat>;

    /// Fills `to` from a byte offset on.
    ///
    /// # Errors
    /// The system's; [`ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_exact_at(&self, to: &mut [u8], offset: u64) -> io::Result<()> {
        let mut got = 0;
        while let Some(rest) = to.get_mut(got..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset + got as u64) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => got += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all of `data` at a byte offset.
    ///
    /// # Errors
    /// The system's, after some bytes or none.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            match self.write_at(rest, offset + done as u64) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// An open directory.
pub trait Directory: Debug + Send + Sync {
    /// fsync: its entries are durable.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self) -> io::Result<()>;

    /// syncfs: all that was written to its file system is durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_file_system(&self) -> io::Result<()>;

    /// Its file system's size.
    ///
    /// # Errors
    /// The system's.
    fn space(&self) -> io::Result<Space>;
}

/// A tree of files.
pub trait Files: Debug + Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;

    /// Opens a directory.
    ///
    /// # Errors
    /// The system's.
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Directory>>;

    /// Makes a directory, and those above it, unless they are there.
    ///
    /// # Errors
    /// The system's.
    fn make_dirs(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// The system's.
    fn names(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Removes a file's name. Who has it open still reads and writes it.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The system's.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, in place of what has it.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// What a file or a directory takes.
    ///
    /// # Errors
    /// The system's.
    fn stat(&self, path: &Path) -> io::Result<Stat>;

    /// The same, and the names of those that were not there are durable.
    ///
    /// # Errors
    /// The system's.
    fn make_durable_dirs(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|dir| self.stat(dir).is_err()).collect();
        self.make_dirs(path)?;
        for parent in missing.into_iter().filter_map(Path::parent) {
            // A relative path's first name stands in the working directory.
            self.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
        }
        Ok(())
    }

    /// fsyncs a directory: its entries are durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.open_dir(path)?.sync()
    }

    /// All bytes of a file.
    ///
    /// # Errors
    /// The system's.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Existing)?;
        let mut bytes = vec![0; usize::try_from(file.stat()?.len).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}
