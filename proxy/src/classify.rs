//! What a client's record is, read in place: program, procedure, handles, name, extent. Nothing is decoded that
//! routing does not need, and nothing is allocated.
//!
//! A handle whose MAC is not ours is refused here (I1); bad XDR answers GARBAGE_ARGS (RFC 5531 section 9).

use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::Xid;
use slice_proto::nfs3::peek::{self, DirOpAt};
use slice_proto::nfs3::{NfsStat3, Proc3, StableHow};
use slice_proto::rpc_msg::{CallHeader, ReplyStatus, RpcError, auth_flavor, program, version};
use slice_proto::xdr;
use std::ops::Range;

/// One client call, as far as the µproxy looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The client's transaction id.
    pub xid: Xid,
    /// Flavor of the credential.
    pub flavor: u32,
    /// Where the credential's body stands in the record, without flavor, length and padding.
    pub cred: Range<usize>,
    /// Where the arguments begin.
    pub args_at: usize,
    /// What is asked.
    pub what: What,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An NFSv3 procedure.
    Nfs(Proc3, Target),
    /// A procedure of MOUNT version 1 or 3.
    Mount {
        /// 1 or 3.
        version: u32,
        /// Its number.
        proc: u32,
    },
    /// A procedure of portmap version 2, rpcbind version 3 or 4.
    Portmap {
        /// 2, 3 or 4.
        version: u32,
        /// Its number.
        proc: u32,
    },
    /// Not answered with results: the whole reply is this status.
    Refuse(ReplyStatus),
}

/// What an NFSv3 call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nothing: NULL.
    Nothing,
    /// An object.
    Object(Handle),
    /// A name in a directory: the one that decides the entry site. For RENAME the new one, for LINK the link's.
    Entry {
        /// The directory.
        dir: Handle,
        /// The name, as it stands in the record.
        name: Range<usize>,
        /// RENAME: the old directory; LINK: the file.
        other: Option<Handle>,
    },
    /// Bytes of a file: READ and COMMIT.
    Extent {
        /// The file.
        file: Handle,
        /// Its handle, as it stands in the record.
        handle: Range<usize>,
        /// First byte.
        offset: u64,
        /// Bytes.
        count: u32,
    },
    /// Bytes for a file.
    Write {
        /// The file.
        file: Handle,
        /// Its handle, as it stands in the record.
        handle: Range<usize>,
        /// First byte.
        offset: u64,
        /// How durable before the reply.
        stable: StableHow,
        /// The bytes, as they stand in the record: as many as `count` says (the rest is cut off).
        data: Range<usize>,
    },
    /// The arguments name no object of ours: the procedure fails with this status.
    Bad(NfsStat3),
}

// === impl Call ===

impl Call {
    /// The record grew by `by` bytes in its credential, or shrank: what stands behind has moved.
    pub fn shift(&mut self, by: isize) {
        let to = |at: usize| at.saturating_add_signed(by);
        let moved = |range: &mut Range<usize>| *range = to(range.start)..to(range.end);
        self.args_at = to(self.args_at);
        self.cred.end = to(self.cred.end);
        self.flavor = auth_flavor::SYS;
        if let What::Nfs(_, target) = &mut self.what {
            match target {
                Target::Entry { name, .. } => moved(name),
                Target::Extent { handle, .. } => moved(handle),
                Target::Write { handle, data, .. } => {
                    moved(handle);
                    moved(data);
                }
                Target::Nothing | Target::Object(_) | Target::Bad(_) => {}
            }
        }
    }
}

/// Classifies a record (without record mark).
///
/// # Errors
/// An [`RpcError`] if it is no RPC call at all: the connection is closed.
pub fn classify(record: &[u8], keys: &KeyRing) -> Result<Call, RpcError> {
    let header = match CallHeader::decode(record) {
        Ok(header) => header,
        Err(RpcError::Version { xid, .. }) => {
            let what = What::Refuse(ReplyStatus::RPC_MISMATCH);
            return Ok(Call { xid, flavor: auth_flavor::NONE, cred: 0..0, args_at: record.len(), what });
        }
        Err(e) => return Err(e),
    };
    // The body of the credential begins behind six words of header, flavor and length.
    const CRED_BODY_AT: usize = 32;
    Ok(Call {
        xid: header.xid,
        flavor: header.cred.flavor,
        cred: CRED_BODY_AT..CRED_BODY_AT + header.cred.body.len(),
        args_at: header.args_at,
        what: what(record, &header, keys),
    })
}

fn what(record: &[u8], header: &CallHeader<'_>, keys: &KeyRing) -> What {
    match header.prog {
        program::NFS => {
            if header.vers != version::NFS3 {
                return mismatch(version::NFS3, version::NFS3);
            }
            let Some(proc) = Proc3::from_u32(header.proc) else {
                return What::Refuse(ReplyStatus::ProcUnavail);
            };
            match target(proc, record, header.args_at, keys) {
                Ok(target) => What::Nfs(proc, target),
                Err(_) => What::Refuse(ReplyStatus::GarbageArgs),
            }
        }
        program::MOUNT => match header.vers {
            // Version 2 differs from 1 by a procedure that nobody calls; clients that get a mismatch try 3 or 1.
            version::MOUNT1 | version::MOUNT3 => What::Mount { version: header.vers, proc: header.proc },
            _ => mismatch(version::MOUNT1, version::MOUNT3),
        },
        program::PORTMAP => match header.vers {
            version::PORTMAP2..=version::RPCBIND4 => {
                What::Portmap { version: header.vers, proc: header.proc }
            }
            _ => mismatch(version::PORTMAP2, version::RPCBIND4),
        },
        // NFSACL, NLM and whatever else is probed.
        _ => What::Refuse(ReplyStatus::ProgUnavail),
    }
}

const fn mismatch(low: u32, high: u32) -> What {
    What::Refuse(ReplyStatus::ProgMismatch { low, high })
}

fn open(record: &[u8], at: &Range<usize>, keys: &KeyRing) -> Option<Handle> {
    record.get(at.clone()).and_then(|bytes| keys.open(bytes).ok())
}

const BAD_HANDLE: Target = Target::Bad(NfsStat3::BADHANDLE);

fn target(proc: Proc3, record: &[u8], at: usize, keys: &KeyRing) -> xdr::Result<Target> {
    let entry = |entry: DirOpAt, other: Option<&Range<usize>>| {
        let dir = open(record, &entry.dir, keys);
        let other = other.map(|at| open(record, at, keys));
        match (dir, other) {
            (Some(dir), None) => Target::Entry { dir, name: entry.name, other: None },
            (Some(dir), Some(Some(other))) => Target::Entry { dir, name: entry.name, other: Some(other) },
            _ => BAD_HANDLE,
        }
    };
    Ok(match proc {
        Proc3::Null => Target::Nothing,
        Proc3::Lookup
        | Proc3::Create
        | Proc3::Mkdir
        | Proc3::Symlink
        | Proc3::Mknod
        | Proc3::Remove
        | Proc3::Rmdir => entry(peek::dirop_at(record, at)?, None),
        Proc3::Rename => {
            let from = peek::dirop_at(record, at)?;
            entry(peek::dirop_at(record, from.end)?, Some(&from.dir))
        }
        Proc3::Link => {
            let file = peek::fh_at(record, at)?;
            entry(peek::dirop_at(record, peek::end_of(&file))?, Some(&file))
        }
        Proc3::Read | Proc3::Commit => {
            let extent = peek::extent_at(record, at)?;
            match open(record, &extent.file, keys) {
                Some(file) => {
                    Target::Extent { file, handle: extent.file, offset: extent.offset, count: extent.count }
                }
                None => BAD_HANDLE,
            }
        }
        Proc3::Write => {
            let write = peek::write_at(record, at)?;
            let mut data = write.data;
            // RFC 1813 section 3.3.7: count and the data's length are the same. More data than counted is cut off; less
            // cannot be written.
            let counted = write.extent.count as usize;
            match open(record, &write.extent.file, keys) {
                None => BAD_HANDLE,
                Some(_) if counted > data.len() => Target::Bad(NfsStat3::INVAL),
                Some(file) => {
                    data.end = data.start + counted;
                    Target::Write {
                        file,
                        handle: write.extent.file,
                        offset: write.extent.offset,
                        stable: write.stable,
                        data,
                    }
                }
            }
        }
        Proc3::Getattr
        | Proc3::Setattr
        | Proc3::Access
        | Proc3::Readlink
        | Proc3::Readdir
        | Proc3::Readdirplus
        | Proc3::Fsstat
        | Proc3::Fsinfo
        | Proc3::Pathconf => open(record, &peek::fh_at(record, at)?, keys).map_or(BAD_HANDLE, Target::Object),
    })
}

/// The program that a call is for; `None` if it is no call.
#[must_use]
pub fn program_of(record: &[u8]) -> Option<u32> {
    CallHeader::decode(record).ok().map(|header| header.prog)
}

/// Whether a procedure changes something: what a read-only export refuses.
#[must_use]
pub const fn mutates(proc: Proc3) -> bool {
    match proc {
        Proc3::Setattr
        | Proc3::Write
        | Proc3::Create
        | Proc3::Mkdir
        | Proc3::Symlink
        | Proc3::Mknod
        | Proc3::Remove
        | Proc3::Rmdir
        | Proc3::Rename
        | Proc3::Link => true,
        Proc3::Null
        | Proc3::Getattr
        | Proc3::Lookup
        | Proc3::Access
        | Proc3::Readlink
        | Proc3::Read
        | Proc3::Readdir
        | Proc3::Readdirplus
        | Proc3::Fsstat
        | Proc3::Fsinfo
        | Proc3::Pathconf
        | Proc3::Commit => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;
    use slice_proto::ids::{EnsembleId, FileId, Site, VolumeId};
    use slice_proto::nfs3::{DirOp, GetattrArgs, LinkArgs, LookupArgs, ReadArgs, RenameArgs, WriteArgs};
    use slice_proto::rpc_msg::{AuthSys, Cred, OpaqueAuth, encode_call};
    use slice_proto::secret::Identity;
    use slice_proto::xdr::Encode;

    fn ring() -> KeyRing {
        KeyRing::new(&Identity { ensemble: EnsembleId(7), secret: [9; 32] }, 0)
    }

    fn handle(n: u64) -> Handle {
        Handle { ftype: 2, volume: VolumeId(0), policy: 0, file: FileId::new(Site(1), n), snapshot: 0 }
    }

    fn call(prog: u32, vers: u32, proc: u32, args: &impl Encode) -> BytesMut {
        let mut w = BytesMut::new();
        let cred = AuthSys { stamp: 1, machine: b"m", cred: Cred::ROOT };
        encode_call(&mut w, Xid(77), prog, vers, proc, &cred);
        args.encode(&mut w);
        w
    }

    fn nfs(proc: Proc3, args: &impl Encode) -> Call {
        classify(&call(program::NFS, 3, proc as u32, args), &ring()).unwrap()
    }

    #[test]
    fn the_routing_fields_of_each_shape_are_found() {
        let (a, b) = (ring().seal(&handle(1)), ring().seal(&handle(2)));
        let got = nfs(Proc3::Getattr, &GetattrArgs { object: &a });
        assert_eq!((got.xid, got.flavor), (Xid(77), auth_flavor::SYS));
        assert_eq!(got.what, What::Nfs(Proc3::Getattr, Target::Object(handle(1))));

        let args = LookupArgs { what: DirOp { dir: &a, name: b"name" } };
        let record = call(program::NFS, 3, Proc3::Lookup as u32, &args);
        let What::Nfs(_, Target::Entry { dir, name, other: None }) = classify(&record, &ring()).unwrap().what
        else {
            panic!("not an entry")
        };
        assert_eq!((dir, &record[name]), (handle(1), &b"name"[..]));

        let args =
            RenameArgs { from: DirOp { dir: &a, name: b"old" }, to: DirOp { dir: &b, name: b"newer" } };
        let record = call(program::NFS, 3, Proc3::Rename as u32, &args);
        let What::Nfs(_, Target::Entry { dir, name, other }) = classify(&record, &ring()).unwrap().what
        else {
            panic!("not an entry")
        };
        assert_eq!((dir, &record[name], other), (handle(2), &b"newer"[..], Some(handle(1))));

        let args = LinkArgs { file: &a, link: DirOp { dir: &b, name: b"x" } };
        let What::Nfs(_, Target::Entry { dir, other, .. }) = nfs(Proc3::Link, &args).what else {
            panic!("not an entry")
        };
        assert_eq!((dir, other), (handle(2), Some(handle(1))));

        let got = nfs(Proc3::Read, &ReadArgs { file: &a, offset: 5, count: 6 });
        assert!(
            matches!(got.what, What::Nfs(_, Target::Extent { file, offset: 5, count: 6, .. }) if file == handle(1))
        );
    }

    #[test]
    fn a_write_of_fewer_bytes_than_counted_is_invalid_and_more_are_cut() {
        let a = ring().seal(&handle(1));
        let write = |count, data: &[u8]| {
            nfs(Proc3::Write, &WriteArgs { file: &a, offset: 9, count, stable: StableHow::Unstable, data })
                .what
        };
        assert_eq!(write(5, b"1234"), What::Nfs(Proc3::Write, Target::Bad(NfsStat3::INVAL)));
        let What::Nfs(_, Target::Write { data, offset: 9, .. }) = write(3, b"1234") else {
            panic!("no write")
        };
        assert_eq!(data.len(), 3);
    }

    #[test]
    fn a_forged_handle_is_bad_and_a_cut_off_call_is_garbage() {
        let mut forged = ring().seal(&handle(1));
        forged[20] ^= 1;
        let bad = What::Nfs(Proc3::Getattr, Target::Bad(NfsStat3::BADHANDLE));
        assert_eq!(nfs(Proc3::Getattr, &GetattrArgs { object: &forged }).what, bad);
        assert_eq!(nfs(Proc3::Getattr, &GetattrArgs { object: &[1, 2, 3] }).what, bad);
        let garbage = What::Refuse(ReplyStatus::GarbageArgs);
        assert_eq!(nfs(Proc3::Getattr, &5u32).what, garbage);
        let good = ring().seal(&handle(1));
        let args = LinkArgs { file: &good, link: DirOp { dir: &forged, name: b"x" } };
        assert_eq!(nfs(Proc3::Link, &args).what, What::Nfs(Proc3::Link, Target::Bad(NfsStat3::BADHANDLE)));
    }

    #[test]
    fn foreign_programs_and_versions_are_refused_as_the_rfc_says() {
        let what = |prog, vers, proc| classify(&call(prog, vers, proc, &0u32), &ring()).unwrap().what;
        assert_eq!(what(program::NFS, 4, 0), mismatch(3, 3));
        assert_eq!(what(program::NFS, 2, 0), mismatch(3, 3));
        assert_eq!(what(program::NFS, 3, 22), What::Refuse(ReplyStatus::ProcUnavail));
        assert_eq!(what(program::NFSACL, 3, 0), What::Refuse(ReplyStatus::ProgUnavail));
        assert_eq!(what(program::MOUNT, 2, 0), mismatch(1, 3));
        assert_eq!(what(program::MOUNT, 3, 1), What::Mount { version: 3, proc: 1 });
        assert_eq!(what(program::PORTMAP, 4, 3), What::Portmap { version: 4, proc: 3 });
        assert_eq!(what(program::PORTMAP, 5, 3), mismatch(2, 4));
    }

    #[test]
    fn another_rpc_version_is_a_mismatch_and_a_reply_is_no_call() {
        let mut record = call(program::NFS, 3, 0, &0u32);
        record[11] = 3;
        assert_eq!(classify(&record, &ring()).unwrap().what, What::Refuse(ReplyStatus::RPC_MISMATCH));
        record[7] = 1;
        assert!(classify(&record, &ring()).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = classify(&bytes, &ring());
        }

        #[test]
        fn arbitrary_arguments_never_panic(
            proc in 0u32..24, vers in 2u32..5, bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut w = BytesMut::new();
            encode_call(&mut w, Xid(1), program::NFS, vers, proc, &OpaqueAuth::NONE);
            w.put_slice(&bytes);
            let call = classify(&w, &ring()).unwrap();
            if let What::Nfs(_, Target::Write { data, .. }) = call.what { prop_assert!(data.end <= w.len()); }
        }
    }
}
