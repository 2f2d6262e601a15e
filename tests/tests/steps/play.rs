//! The operations: what each needs, and its record. Servers are chosen so that as many as possible take part:
//!
//! ```text
//!   directory a, home dir3          directory b, home dir2
//!     `from`: entry and home dir3     `to`: entry dir1, and home of what is made there
//! ```
//! Under mkdir switching a directory's entries are at its home, and only directories have homes elsewhere.

use super::client::{Client, Fh};
use super::ensemble::DIRS;
use super::names::Names;
use slice_proto::ids::FileId;
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    CommitArgs, CreateArgs, CreateHow, LinkArgs, MkdirArgs, MknodArgs, MknodWhat, NfsTime3, Proc3,
    RemoveArgs, RenameArgs, Sattr3, SetattrArgs, StableHow, SymlinkArgs, TimeHow, Verifier, WriteArgs,
};
use slice_proto::placement::{STRIPE_UNIT, THRESHOLD};
use std::collections::BTreeSet;

/// End of the large files: in their second stripe unit, so that the small-file server and both storage nodes have bytes.
pub const LARGE: u64 = STRIPE_UNIT + 5000;
/// Below every reach: a cut, in the first stripe unit.
pub const CUT: u64 = THRESHOLD + 6000;
/// Past every reach: growth.
pub const GROWN: u64 = 3 * STRIPE_UNIT;
/// Where the one great WRITE begins: below the threshold. It ends in the second stripe unit.
pub const WRITE_AT: u64 = 50 << 10;
pub const MTIME: NfsTime3 = NfsTime3 { seconds: 1_000_000, nseconds: 5 };
pub const TARGET: &[u8] = b"elsewhere/and/nowhere";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Create,
    CreateExclusive,
    Mkdir,
    Symlink,
    Mknod,
    /// Of one of two names.
    Unlink,
    /// Of the last name of an empty file.
    Remove,
    Rmdir,
    Link,
    Rename,
    RenameOver,
    RenameDir,
    RenameDirOver,
    /// SETATTR of mode and time.
    Setattr,
    /// SETATTR of a smaller size, a mode and a time.
    Cut,
    /// SETATTR of a size past the reach.
    Grow,
    /// CREATE of a new file that begins with a size.
    CreateSized,
    /// CREATE over a large file: O_CREAT with O_TRUNC.
    CreateOver,
    /// REMOVE of a large file's last name.
    RemoveLarge,
    /// RENAME over a large file's last name.
    RenameOverLarge,
    /// WRITE, FILE_SYNC, to all data servers of the file.
    WriteSync,
    /// WRITE, UNSTABLE, to all data servers of the file.
    Write,
    /// COMMIT of UNSTABLE writes to all of them.
    Commit,
    /// SETATTR of a mode while there is growth to be pushed.
    SetattrWritten,
    /// REMOVE of a large file whose home dies after its intention was logged: the coordinator takes it over.
    RemoveLeft,
    /// SETATTR of a smaller size, left in the same way.
    CutLeft,
}

impl Op {
    pub const ALL: [Self; 26] = [
        Self::Create,
        Self::CreateExclusive,
        Self::Mkdir,
        Self::Symlink,
        Self::Mknod,
        Self::Unlink,
        Self::Remove,
        Self::Rmdir,
        Self::Link,
        Self::Rename,
        Self::RenameOver,
        Self::RenameDir,
        Self::RenameDirOver,
        Self::Setattr,
        Self::Cut,
        Self::Grow,
        Self::CreateSized,
        Self::CreateOver,
        Self::RemoveLarge,
        Self::RenameOverLarge,
        Self::WriteSync,
        Self::Write,
        Self::Commit,
        Self::SetattrWritten,
        Self::RemoveLeft,
        Self::CutLeft,
    ];

    /// Whether it has to do with bytes; how those go does not depend on how names are spread.
    pub fn of_bytes(self) -> bool {
        self >= Self::Cut
    }

    /// Whether it works with what the µproxy knows of earlier writes, and would be another operation without it.
    pub fn needs_soft_state(self) -> bool {
        matches!(self, Self::Commit | Self::SetattrWritten)
    }

    /// Whether the file's home dies once the intention is logged, and comes back once it was taken over.
    pub fn is_left(self) -> bool {
        matches!(self, Self::RemoveLeft | Self::CutLeft)
    }

    /// Whether its reply is kept: doing it twice would not be the same.
    pub fn is_kept(self) -> bool {
        !matches!(self, Self::WriteSync | Self::Write | Self::Commit | Self::SetattrWritten)
    }

    fn starts_with_file(self) -> bool {
        !matches!(
            self,
            Self::Create
                | Self::CreateExclusive
                | Self::Mkdir
                | Self::Symlink
                | Self::Mknod
                | Self::CreateSized
        )
    }

    fn large(self) -> bool {
        matches!(
            self,
            Self::Cut
                | Self::Grow
                | Self::CreateOver
                | Self::RemoveLarge
                | Self::RenameOverLarge
                | Self::RemoveLeft
                | Self::CutLeft
        )
    }
}

/// A file that is there before the operation.
#[derive(Clone)]
pub struct Old {
    pub fh: Fh,
    pub id: FileId,
}

/// An operation on directories and files of its own.
pub struct Play {
    pub op: Op,
    pub a: Fh,
    pub b: Fh,
    pub from: Vec<u8>,
    pub to: Vec<u8>,
    /// The file or directory that it is about.
    pub file: Option<Old>,
    /// What stands in a RENAME's way.
    pub over: Option<Old>,
    /// What the file holds afterwards.
    pub content: Vec<u8>,
    /// The verifier of the writes that a COMMIT is about.
    pub verf: Option<Verifier>,
    pub record: Vec<u8>,
}

/// Bytes that tell where they belong.
pub fn bytes(from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(|at| (at * 31 % 251) as u8 + 1).collect()
}

/// Pieces of a large file at the small-file server and at both storage nodes; between them are holes.
pub const PIECES: [(u64, u64); 3] = [(0, 3000), (THRESHOLD + 4000, 4000), (LARGE - 4000, 4000)];

/// The whole of it.
pub fn large_content() -> Vec<u8> {
    let mut all = vec![0; LARGE as usize];
    for (at, len) in PIECES {
        all[at as usize..(at + len) as usize].copy_from_slice(&bytes(at, len));
    }
    all
}

/// Writes them until all are written under one verifier: it changes under a first WRITE after a data server's death.
pub async fn write_pieces(client: &Client, fh: &[u8]) -> Verifier {
    for _ in 0..TRIES {
        let mut verfs = BTreeSet::new();
        for (at, len) in PIECES {
            verfs.insert(client.write(fh, at, &bytes(at, len), StableHow::Unstable).await.verf.0);
        }
        if let (1, Some(verf)) = (verfs.len(), verfs.first()) {
            return Verifier(*verf);
        }
    }
    panic!("the verifier changes though nobody dies (I7)");
}

/// How often writes are sent again whose verifier has changed: once for each data server that was started anew.
pub const TRIES: usize = 5;

async fn fill(client: &Client, fh: &[u8]) {
    for _ in 0..TRIES {
        let verf = write_pieces(client, fh).await;
        if client.commit(fh).await.verf == verf {
            return;
        }
    }
    panic!("the verifier changes though nobody dies (I7)");
}

pub fn sized(size: u64) -> Sattr3 {
    Sattr3 { size: Some(size), ..Sattr3::default() }
}

impl Play {
    /// Makes what the operation needs.
    pub async fn prepare(client: &Client, names: &Names, op: Op, tag: &str) -> Self {
        let a = names.directory(client, DIRS[2], &format!("{tag}a")).await;
        let b = names.directory(client, DIRS[1], &format!("{tag}b")).await;
        // A directory's home is another server than its entry's wherever the policy allows it.
        let from = names.at(&a, if names.hashed() { DIRS[2] } else { DIRS[0] }, "from");
        let to = names.at(&b, DIRS[0], "to");
        let mut p = Self {
            op,
            a,
            b,
            from,
            to,
            file: None,
            over: None,
            content: Vec::new(),
            verf: None,
            record: Vec::new(),
        };
        if op.starts_with_file() {
            p.make_file(client, names).await;
        }
        p.record = p.call(client);
        p
    }

    async fn make_file(&mut self, client: &Client, names: &Names) {
        let (op, a, b) = (self.op, &self.a, &self.b);
        let old = |fh: Fh| Old { id: names.file(&fh), fh };
        let fh = match op {
            Op::Rmdir | Op::RenameDir | Op::RenameDirOver => client.mkdir(a, &self.from).await,
            _ => client.create(a, &self.from, 0o644).await,
        };
        if op.large() && op != Op::RenameOverLarge {
            fill(client, &fh).await;
            self.content = large_content();
        }
        if matches!(op, Op::Commit | Op::SetattrWritten) {
            self.verf = Some(write_pieces(client, &fh).await);
            self.content = large_content();
        }
        match op {
            // Under another name than it was made by: at another server than its home.
            Op::Remove | Op::Rmdir | Op::CreateOver | Op::RemoveLarge | Op::RemoveLeft => {
                client.rename(a, &self.from, b, &self.to).await;
            }
            Op::Unlink => {
                let args = LinkArgs { file: &fh, link: DirOp { dir: b, name: &self.to } };
                let linked = client.call::<slice_proto::nfs3::LinkRes>(Proc3::Link, &args).await;
                linked.into_result().unwrap();
            }
            Op::RenameOver | Op::RenameDirOver | Op::RenameOverLarge => {
                // Its home is dir2, wherever the name that it gets is.
                let made = names.at(b, DIRS[1], "over");
                let over = match op {
                    Op::RenameDirOver => client.mkdir(b, &made).await,
                    _ => client.create(b, &made, 0o600).await,
                };
                if op == Op::RenameOverLarge {
                    fill(client, &over).await;
                }
                client.rename(b, &made, b, &self.to).await;
                self.over = Some(old(over));
            }
            _ => {}
        }
        self.file = Some(old(fh));
    }

    fn call(&self, client: &Client) -> Vec<u8> {
        let from = DirOp { dir: &self.a, name: &self.from };
        let to = DirOp { dir: &self.b, name: &self.to };
        let fh = || self.file.as_ref().unwrap().fh.as_slice();
        let none = Sattr3::default();
        let create = |how| client.record(Proc3::Create, &CreateArgs { at: to, how });
        let setattr = |attr| client.record(Proc3::Setattr, &SetattrArgs { object: fh(), attr, guard: None });
        let write = |stable| {
            let data = bytes(WRITE_AT, 1 << 20);
            let args =
                WriteArgs { file: fh(), offset: WRITE_AT, count: data.len() as u32, stable, data: &data };
            client.record(Proc3::Write, &args)
        };
        match self.op {
            Op::Create => create(CreateHow::Guarded(Sattr3 { mode: Some(0o640), ..none })),
            Op::CreateExclusive => create(CreateHow::Exclusive(*b"as no1!!")),
            Op::CreateSized => create(CreateHow::Guarded(sized(CUT))),
            Op::CreateOver => create(CreateHow::Unchecked(sized(0))),
            Op::Mkdir => client.record(Proc3::Mkdir, &MkdirArgs { at: to, attr: none }),
            Op::Symlink => client.record(Proc3::Symlink, &SymlinkArgs { at: to, attr: none, target: TARGET }),
            Op::Mknod => client.record(Proc3::Mknod, &MknodArgs { at: to, what: MknodWhat::Fifo(none) }),
            Op::Unlink | Op::Remove | Op::RemoveLarge | Op::RemoveLeft => {
                client.record(Proc3::Remove, &RemoveArgs { object: to })
            }
            Op::Rmdir => client.record(Proc3::Rmdir, &RemoveArgs { object: to }),
            Op::Link => client.record(Proc3::Link, &LinkArgs { file: fh(), link: to }),
            Op::Rename | Op::RenameOver | Op::RenameDir | Op::RenameDirOver | Op::RenameOverLarge => {
                client.record(Proc3::Rename, &RenameArgs { from, to })
            }
            Op::Setattr => setattr(Sattr3 { mode: Some(0o600), mtime: TimeHow::Client(MTIME), ..none }),
            Op::Cut | Op::CutLeft => {
                setattr(Sattr3 { mode: Some(0o600), mtime: TimeHow::Client(MTIME), ..sized(CUT) })
            }
            Op::Grow => setattr(sized(GROWN)),
            Op::SetattrWritten => setattr(Sattr3 { mode: Some(0o600), ..none }),
            Op::WriteSync => write(StableHow::FileSync),
            Op::Write => write(StableHow::Unstable),
            Op::Commit => client.record(Proc3::Commit, &CommitArgs { file: fh(), offset: 0, count: 0 }),
        }
    }
}
