//! What clients do with names and attributes, and what they are answered.

use std::collections::BTreeMap;

/// A file's or directory's number.
pub type Obj = u64;
/// A name, as a number: few, so that clients meet.
pub type Name = u16;
/// A status that is not OK (RFC 1813 section 2.6).
pub type Status = u32;

/// What if a name that is to be created is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// Take it.
    Unchecked,
    /// Fail.
    Guarded,
    /// Fail, unless it was made by this very call.
    Exclusive,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // as RFC 1813 calls them
pub enum Op {
    Create { dir: Obj, name: Name, how: How },
    Mkdir { dir: Obj, name: Name },
    Symlink { dir: Obj, name: Name },
    Remove { dir: Obj, name: Name },
    Rmdir { dir: Obj, name: Name },
    Rename { from_dir: Obj, from: Name, to_dir: Obj, to: Name },
    Link { file: Obj, dir: Obj, name: Name },
    Chmod { obj: Obj, mode: u32 },
    Truncate { obj: Obj, size: u64 },
    Lookup { dir: Obj, name: Name },
    Getattr { obj: Obj },
    Readdir { dir: Obj },
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Dir,
    Link,
}

/// Attributes, as far as they are judged by the search for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Attr {
    pub kind: Kind,
    pub mode: u32,
    pub nlink: u32,
    /// Of a file.
    pub size: u64,
}

/// What a successful operation has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What was found or made.
    pub obj: Option<Obj>,
    /// Its attributes; only of a GETATTR.
    pub attr: Option<Attr>,
    /// Names of a directory.
    pub names: Option<BTreeMap<Name, Obj>>,
}

/// The answer.
pub type Answer = Result<Seen, Status>;

/// One operation of a history.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose.
    pub client: usize,
    /// When it was called and answered: numbers that order all calls and answers of the history.
    pub called: u64,
    /// See `called`.
    pub answered: u64,
    /// What.
    pub op: Op,
    /// How it went.
    pub answer: Answer,
}

impl Op {
    /// Whether it never changes anything.
    #[must_use]
    pub const fn reads(&self) -> bool {
        matches!(self, Self::Lookup { .. } | Self::Getattr { .. } | Self::Readdir { .. })
    }

    /// The names that it may change.
    #[must_use]
    pub fn names(&self) -> Vec<(Obj, Name)> {
        match *self {
            Self::Create { dir, name, .. }
            | Self::Mkdir { dir, name }
            | Self::Symlink { dir, name }
            | Self::Remove { dir, name }
            | Self::Rmdir { dir, name }
            | Self::Link { dir, name, .. } => vec![(dir, name)],
            Self::Rename { from_dir, from, to_dir, to } => vec![(from_dir, from), (to_dir, to)],
            Self::Chmod { .. }
            | Self::Truncate { .. }
            | Self::Lookup { .. }
            | Self::Getattr { .. }
            | Self::Readdir { .. } => Vec::new(),
        }
    }
}
