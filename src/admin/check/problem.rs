//! What can be wrong with an ensemble.

use slice_proto::ids::{Epoch, FileId, Role, ServerId};
use std::fmt;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Problem {
    /// A name stands for a file of which there is no attribute record.
    EntryWithoutAttributes {
        /// The directory.
        dir: FileId,
        /// Whom the name stands for.
        child: FileId,
    },
    /// A file that no name stands for.
    AttributesWithoutEntry {
        /// The file.
        file: FileId,
    },
    /// Names in a directory that is not there.
    EntriesWithoutDirectory {
        /// The directory.
        dir: FileId,
        /// How many.
        entries: u64,
    },
    /// Names in something that is not a directory.
    EntriesOfAFile {
        /// The file.
        file: FileId,
        /// How many.
        entries: u64,
    },
    /// A name twice in one directory.
    NameTwice {
        /// The directory.
        dir: FileId,
        /// The name.
        name: Vec<u8>,
    },
    /// The name and the attribute record tell of different kinds of object.
    TypeDiffers {
        /// The file.
        file: FileId,
        /// ftype3 that the name tells of.
        entry: u32,
        /// ftype3 of the record.
        record: u32,
    },
    /// More or fewer names stand for a file than it counts links; for a directory, links are two and its subdirectories.
    LinkCount {
        /// The file.
        file: FileId,
        /// Its link count.
        nlink: u32,
        /// What it should be.
        should: u64,
    },
    /// A directory under several names.
    DirectoryLinked {
        /// The directory.
        dir: FileId,
        /// How many.
        names: u64,
    },
    /// A directory counts other than its entries.
    EntryCount {
        /// The directory.
        dir: FileId,
        /// Its count.
        counts: u64,
        /// Its entries.
        has: u64,
    },
    /// A directory's record names another parent than the directory that its name stands in.
    Parent {
        /// The directory.
        dir: FileId,
        /// The parent that it names.
        names: FileId,
        /// The directory that its name stands in; its own id for a root.
        should: FileId,
    },
    /// A directory that no root leads to, though a name stands for it.
    Unreachable {
        /// The directory.
        dir: FileId,
    },
    /// An attribute record, or an object, at a server that does not own its site, or at several.
    Misplaced {
        /// The file.
        file: FileId,
        /// The role that has it.
        role: Role,
        /// The server that has it.
        server: ServerId,
    },
    /// A volume's root has no attribute record.
    NoRoot {
        /// The root.
        root: FileId,
    },
    /// The small-file server holds another size than min(size, 64 KiB).
    SmallSize {
        /// The file.
        file: FileId,
        /// Size in its attribute record.
        size: u64,
        /// What the small-file server holds.
        holds: u64,
    },
    /// The small-file server believes wrongly that the file does, or does not, go beyond 64 KiB.
    Beyond {
        /// The file.
        file: FileId,
        /// Size in its attribute record.
        size: u64,
        /// What the small-file server believes.
        beyond: bool,
    },
    /// Bytes past the end of the file.
    BytesBeyondSize {
        /// The file.
        file: FileId,
        /// Its size.
        size: u64,
        /// Where the bytes end.
        end: u64,
        /// Who holds them.
        server: ServerId,
    },
    /// Bytes past the file's reach.
    BytesBeyondReach {
        /// The file.
        file: FileId,
        /// Its reach.
        reach: u64,
        /// Where the bytes end.
        end: u64,
        /// Who holds them.
        server: ServerId,
    },
    /// A data server has seen a higher epoch than the home site ever handed out.
    EpochAhead {
        /// The file.
        file: FileId,
        /// Of its attribute record.
        record: Epoch,
        /// Of the object.
        object: Epoch,
        /// Who has the object.
        server: ServerId,
    },
    /// The bytes of a living file were purged.
    Buried {
        /// The file.
        file: FileId,
        /// Who purged them.
        server: ServerId,
    },
    /// Bytes of what is not a regular file.
    BytesOfNoFile {
        /// The directory, link or special file.
        file: FileId,
        /// Who holds them.
        server: ServerId,
    },
    /// An object of a file that is gone.
    Orphan {
        /// The file.
        file: FileId,
        /// Who holds it.
        server: ServerId,
        /// Bytes that it uses.
        used: u64,
    },
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Attribute records.
    pub files: u64,
    /// Those of them that are directories.
    pub directories: u64,
    /// Names.
    pub entries: u64,
    /// Objects at data servers, tombstones included.
    pub objects: u64,
    /// What is wrong, in order.
    pub problems: Vec<Problem>,
    /// Further problems that were not kept.
    pub more: u64,
    /// How often the ensemble was listed.
    pub passes: u32,
}

impl Problem {
    /// What it is about: the files and directories whose records must be looked at to mend it.
    #[must_use]
    pub fn files(&self) -> Vec<FileId> {
        match self {
            Self::EntryWithoutAttributes { dir, child } => vec![*dir, *child],
            Self::EntriesWithoutDirectory { dir, .. }
            | Self::NameTwice { dir, .. }
            | Self::DirectoryLinked { dir, .. }
            | Self::EntryCount { dir, .. }
            | Self::Parent { dir, .. }
            | Self::Unreachable { dir } => vec![*dir],
            Self::AttributesWithoutEntry { file }
            | Self::EntriesOfAFile { file, .. }
            | Self::TypeDiffers { file, .. }
            | Self::LinkCount { file, .. }
            | Self::Misplaced { file, .. }
            | Self::SmallSize { file, .. }
            | Self::Beyond { file, .. }
            | Self::BytesBeyondSize { file, .. }
            | Self::BytesBeyondReach { file, .. }
            | Self::EpochAhead { file, .. }
            | Self::Buried { file, .. }
            | Self::BytesOfNoFile { file, .. }
            | Self::Orphan { file, .. } => vec![*file],
            Self::NoRoot { root } => vec![*root],
        }
    }
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.problems.is_empty() && self.more == 0
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EntryWithoutAttributes { dir, child } => {
                write!(f, "a name in directory {dir} stands for file {child}, which has no attribute record")
            }
            Self::AttributesWithoutEntry { file } => write!(f, "no name stands for file {file}"),
            Self::EntriesWithoutDirectory { dir, entries } => {
                write!(f, "{entries} names stand in directory {dir}, which has no attribute record")
            }
            Self::EntriesOfAFile { file, entries } => {
                write!(f, "{entries} names stand in {file}, which is not a directory")
            }
            Self::NameTwice { dir, name } => {
                write!(f, "directory {dir} has the name {:?} twice", String::from_utf8_lossy(name))
            }
            Self::TypeDiffers { file, entry, record } => {
                write!(f, "the name of file {file} says type {entry}, its attribute record type {record}")
            }
            Self::LinkCount { file, nlink, should } => {
                write!(f, "file {file} has a link count of {nlink} instead of {should}")
            }
            Self::DirectoryLinked { dir, names } => write!(f, "{names} names stand for directory {dir}"),
            Self::EntryCount { dir, counts, has } => {
                write!(f, "directory {dir} counts {counts} entries and has {has}")
            }
            Self::Parent { dir, names, should } => {
                write!(f, "directory {dir} has parent {names} in its record instead of {should}")
            }
            Self::Unreachable { dir } => write!(f, "no root leads to directory {dir}"),
            Self::Misplaced { file, role, server } => {
                write!(
                    f,
                    "{role} {server} holds what it has of file {file} without owning its site, or beside another"
                )
            }
            Self::NoRoot { root } => write!(f, "the root directory {root} has no attribute record"),
            Self::SmallSize { file, size, holds } => {
                write!(f, "file {file} has size {size}, but its small-file server holds {holds}")
            }
            Self::Beyond { file, size, beyond: true } => {
                write!(
                    f,
                    "file {file} has size {size}, but its small-file server believes that it goes beyond 64 KiB"
                )
            }
            Self::Beyond { file, size, beyond: false } => {
                write!(
                    f,
                    "file {file} has size {size}, but its small-file server does not know that it goes beyond 64 KiB"
                )
            }
            Self::BytesBeyondSize { file, size, end, server } => {
                write!(f, "file {file} has size {size}, but blockstore {server} holds bytes up to {end}")
            }
            Self::BytesBeyondReach { file, reach, end, server } => {
                write!(f, "file {file} has reach {reach}, but blockstore {server} holds bytes up to {end}")
            }
            Self::EpochAhead { file, record, object, server } => {
                write!(
                    f,
                    "file {file} has epoch {}, but server {server} has seen epoch {}",
                    record.0, object.0
                )
            }
            Self::Buried { file, server } => {
                write!(f, "file {file} lives, but server {server} has purged its bytes")
            }
            Self::BytesOfNoFile { file, server } => {
                write!(f, "{file} is not a regular file, but server {server} holds bytes of it")
            }
            Self::Orphan { file, server, used } => {
                write!(
                    f,
                    "file {file} is gone, but server {server} holds an object of it that uses {used} bytes"
                )
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        if self.more > 0 {
            writeln!(f, "and {} problems more", self.more)?;
        }
        let verdict = if self.clean() {
            "clean".to_owned()
        } else {
            format!("{} problems", self.problems.len() as u64 + self.more)
        };
        let Self { files, directories, entries, objects, .. } = self;
        write!(
            f,
            "{verdict}: {files} files ({directories} of them directories), {entries} names, {objects} objects"
        )
    }
}
