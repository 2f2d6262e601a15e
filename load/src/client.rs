//! The procedures of NFSv3, MOUNT and portmap, typed: arguments borrowed, results owned.

use crate::Error;
use crate::conn::{Conn, Pending, Reply};
use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::ids::FileId;
use slice_proto::mount::{DirPath, ExportList, MntRes, MountList, MountProc};
use slice_proto::nfs3::*;
use slice_proto::portmap::{IPPROTO_TCP, Mapping, proc2};
use slice_proto::rpc_msg::{AuthSys, Cred, OpaqueAuth, program, version};
use slice_proto::xdr::Encode;
use std::fmt;
use std::net::SocketAddr;

/// A file handle: opaque, at most 64 bytes, in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fh {
    len: u8,
    bytes: [u8; NFS3_FHSIZE as usize],
}

/// Speaks NFSv3 for one user over one connection.
#[derive(Debug, Clone)]
pub struct Client {
    conn: Conn,
    cred: Encoded,
}

/// A credential, encoded once.
#[derive(Debug, Clone)]
struct Encoded(Bytes);

/// What LOOKUP finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The object.
    pub object: Fh,
    /// Its attributes.
    pub attr: PostOpAttr,
    /// The directory's attributes.
    pub dir_attr: PostOpAttr,
}

/// What CREATE, MKDIR, SYMLINK and MKNOD make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// The object.
    pub object: Option<Fh>,
    /// Its attributes.
    pub attr: PostOpAttr,
    /// The directory before and after.
    pub dir_wcc: WccData,
}

/// What READ reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The file's attributes.
    pub attr: PostOpAttr,
    /// Whether the read ended at or past the end of the file.
    pub eof: bool,
    /// The bytes.
    pub data: Bytes,
}

/// What READLINK reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The link's attributes.
    pub attr: PostOpAttr,
    /// What it points to.
    pub target: Vec<u8>,
}

/// An entry of READDIR (without attributes and handle) or READDIRPLUS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The object.
    pub fileid: FileId,
    /// Its name.
    pub name: Vec<u8>,
    /// Where the next entry begins.
    pub cookie: u64,
    /// The object's attributes.
    pub attr: PostOpAttr,
    /// The object's handle.
    pub handle: Option<Fh>,
}

/// What READDIR and READDIRPLUS return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The directory's attributes.
    pub dir_attr: PostOpAttr,
    /// To be given back with a cookie.
    pub verf: CookieVerf,
    /// The entries.
    pub entries: Vec<Listed>,
    /// Whether the last entry is the directory's last.
    pub eof: bool,
}

/// What MNT returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// The export's root.
    pub root: Fh,
    /// Flavors that it accepts.
    pub flavors: Vec<u32>,
}

// === impl Fh ===

impl Fh {
    /// A handle of these bytes; what is past [`NFS3_FHSIZE`] is cut off (no decoder returns more).
    #[must_use]
    pub fn new(handle: &[u8]) -> Self {
        let mut fh = Self { len: 0, bytes: [0; NFS3_FHSIZE as usize] };
        for (to, from) in fh.bytes.iter_mut().zip(handle) {
            *to = *from;
            fh.len += 1;
        }
        fh
    }

    /// Its bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Debug for Fh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

// === impl Encoded ===

impl Encoded {
    fn new(cred: &impl Encode) -> Self {
        let mut w = BytesMut::new();
        cred.encode(&mut w);
        Self(w.freeze())
    }
}

impl Encode for Encoded {
    fn encode(&self, w: &mut BytesMut) {
        w.put_slice(&self.0);
    }
}

/// The same result with owned parts.
fn own<O, F, T>(res: Res3<O, F>, ok: impl FnOnce(O) -> T) -> Res3<T, F> {
    match res {
        Res3::Ok(o) => Res3::Ok(ok(o)),
        Res3::Err(status, fail) => Res3::Err(status, fail),
    }
}

fn made(ok: CreateOk<'_>) -> Made {
    Made { object: ok.object.map(Fh::new), attr: ok.attr, dir_wcc: ok.dir_wcc }
}

fn listed(e: &Entry<'_>) -> Listed {
    Listed { fileid: e.fileid, name: e.name.to_vec(), cookie: e.cookie, attr: None, handle: None }
}

/// Result of a call: what the transport says, then what the procedure says.
pub type Answer<O, F> = Result<Res3<O, F>, Error>;

// === impl Client ===

impl Client {
    /// Name that the credential gives as the caller's machine.
    const MACHINE: &'static [u8] = b"slice-load";

    /// A client for `cred` over `conn`.
    #[must_use]
    pub fn new(conn: Conn, cred: Cred) -> Self {
        let cred = Encoded::new(&AuthSys { stamp: 0, machine: Self::MACHINE, cred });
        Self { conn, cred }
    }

    /// Connects to `peer` as the superuser.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn connect(peer: SocketAddr) -> Result<Self, Error> {
        Ok(Self::new(Conn::connect(peer).await?, Cred::ROOT))
    }

    /// The same connection, for another user.
    #[must_use]
    pub fn with_cred(&self, cred: Cred) -> Self {
        Self::new(self.conn.clone(), cred)
    }

    /// The connection.
    #[must_use]
    pub const fn conn(&self) -> &Conn {
        &self.conn
    }

    /// Starts an NFSv3 call; it is under way before its reply is waited for.
    pub fn start(&self, proc: Proc3, args: &impl Encode) -> Pending {
        self.conn.start(program::NFS, version::NFS3, proc as u32, &self.cred, args)
    }

    async fn call(&self, proc: Proc3, args: &impl Encode) -> Result<Reply, Error> {
        self.start(proc, args).reply().await
    }

    async fn call_mount(&self, proc: MountProc, args: &impl Encode) -> Result<Reply, Error> {
        self.conn.start(program::MOUNT, version::MOUNT3, proc as u32, &self.cred, args).reply().await
    }

    /// NULL.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn null(&self) -> Result<(), Error> {
        self.call(Proc3::Null, &()).await?.decode()
    }

    /// GETATTR.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn getattr(&self, object: &Fh) -> Answer<Fattr3, ()> {
        self.call(Proc3::Getattr, &GetattrArgs { object: object.as_slice() }).await?.decode()
    }

    /// SETATTR.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn setattr(
        &self,
        object: &Fh,
        attr: Sattr3,
        guard: Option<NfsTime3>,
    ) -> Answer<WccData, WccData> {
        let args = SetattrArgs { object: object.as_slice(), attr, guard };
        self.call(Proc3::Setattr, &args).await?.decode()
    }

    /// LOOKUP.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn lookup(&self, dir: &Fh, name: &[u8]) -> Answer<Found, PostOpAttr> {
        let args = LookupArgs { what: DirOp { dir: dir.as_slice(), name } };
        let reply = self.call(Proc3::Lookup, &args).await?;
        let res: LookupRes<'_> = reply.decode()?;
        Ok(own(res, |ok| Found { object: Fh::new(ok.object), attr: ok.attr, dir_attr: ok.dir_attr }))
    }

    /// ACCESS.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn access(&self, object: &Fh, access: u32) -> Answer<AccessOk, PostOpAttr> {
        self.call(Proc3::Access, &AccessArgs { object: object.as_slice(), access }).await?.decode()
    }

    /// READLINK.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn readlink(&self, symlink: &Fh) -> Answer<Target, PostOpAttr> {
        let reply = self.call(Proc3::Readlink, &ReadlinkArgs { symlink: symlink.as_slice() }).await?;
        let res: ReadlinkRes<'_> = reply.decode()?;
        Ok(own(res, |ok| Target { attr: ok.attr, target: ok.target.to_vec() }))
    }

    /// READ.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures; [`Error::Protocol`] if count and data disagree.
    pub async fn read(&self, file: &Fh, offset: u64, count: u32) -> Answer<Data, PostOpAttr> {
        let reply = self.call(Proc3::Read, &ReadArgs { file: file.as_slice(), offset, count }).await?;
        let res: ReadRes<'_> = reply.decode()?;
        if let Res3::Ok(ok) = &res
            && (ok.count as usize != ok.data.len() || ok.count > count)
        {
            return Err(Error::Protocol(
                "READ returned a count that is not its data's, or more than was asked",
            ));
        }
        Ok(own(res, |ok| Data { attr: ok.attr, eof: ok.eof, data: reply.share(ok.data) }))
    }

    /// WRITE.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn write(
        &self,
        file: &Fh,
        offset: u64,
        data: &[u8],
        stable: StableHow,
    ) -> Answer<WriteOk, WccData> {
        let args = WriteArgs { file: file.as_slice(), offset, count: data.len() as u32, stable, data };
        self.call(Proc3::Write, &args).await?.decode()
    }

    /// CREATE.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn create(&self, dir: &Fh, name: &[u8], how: CreateHow) -> Answer<Made, WccData> {
        let args = CreateArgs { at: DirOp { dir: dir.as_slice(), name }, how };
        let reply = self.call(Proc3::Create, &args).await?;
        Ok(own(reply.decode::<CreateRes<'_>>()?, made))
    }

    /// MKDIR.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn mkdir(&self, dir: &Fh, name: &[u8], attr: Sattr3) -> Answer<Made, WccData> {
        let args = MkdirArgs { at: DirOp { dir: dir.as_slice(), name }, attr };
        let reply = self.call(Proc3::Mkdir, &args).await?;
        Ok(own(reply.decode::<MkdirRes<'_>>()?, made))
    }

    /// SYMLINK.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn symlink(&self, dir: &Fh, name: &[u8], attr: Sattr3, target: &[u8]) -> Answer<Made, WccData> {
        let args = SymlinkArgs { at: DirOp { dir: dir.as_slice(), name }, attr, target };
        let reply = self.call(Proc3::Symlink, &args).await?;
        Ok(own(reply.decode::<SymlinkRes<'_>>()?, made))
    }

    /// MKNOD.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn mknod(&self, dir: &Fh, name: &[u8], what: MknodWhat) -> Answer<Made, WccData> {
        let args = MknodArgs { at: DirOp { dir: dir.as_slice(), name }, what };
        let reply = self.call(Proc3::Mknod, &args).await?;
        Ok(own(reply.decode::<MknodRes<'_>>()?, made))
    }

    /// REMOVE.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn remove(&self, dir: &Fh, name: &[u8]) -> Answer<WccData, WccData> {
        let args = RemoveArgs { object: DirOp { dir: dir.as_slice(), name } };
        self.call(Proc3::Remove, &args).await?.decode()
    }

    /// RMDIR.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn rmdir(&self, dir: &Fh, name: &[u8]) -> Answer<WccData, WccData> {
        let args = RemoveArgs { object: DirOp { dir: dir.as_slice(), name } };
        self.call(Proc3::Rmdir, &args).await?.decode()
    }

    /// RENAME.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn rename(&self, from: (&Fh, &[u8]), to: (&Fh, &[u8])) -> Answer<RenameOk, RenameOk> {
        let args = RenameArgs {
            from: DirOp { dir: from.0.as_slice(), name: from.1 },
            to: DirOp { dir: to.0.as_slice(), name: to.1 },
        };
        self.call(Proc3::Rename, &args).await?.decode()
    }

    /// LINK.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn link(&self, file: &Fh, dir: &Fh, name: &[u8]) -> Answer<LinkOk, LinkOk> {
        let args = LinkArgs { file: file.as_slice(), link: DirOp { dir: dir.as_slice(), name } };
        self.call(Proc3::Link, &args).await?.decode()
    }

    /// READDIR.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn readdir(
        &self,
        dir: &Fh,
        cookie: u64,
        verf: CookieVerf,
        count: u32,
    ) -> Answer<Page, PostOpAttr> {
        let args = ReaddirArgs { dir: dir.as_slice(), cookie, verf, count };
        let reply = self.call(Proc3::Readdir, &args).await?;
        let res: ReaddirRes<'_> = reply.decode()?;
        Ok(own(res, |ok| Page {
            dir_attr: ok.dir_attr,
            verf: ok.verf,
            entries: ok.entries.iter().map(listed).collect(),
            eof: ok.eof,
        }))
    }

    /// READDIRPLUS.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn readdirplus(
        &self,
        dir: &Fh,
        cookie: u64,
        verf: CookieVerf,
        dircount: u32,
        maxcount: u32,
    ) -> Answer<Page, PostOpAttr> {
        let args = ReaddirplusArgs { dir: dir.as_slice(), cookie, verf, dircount, maxcount };
        let reply = self.call(Proc3::Readdirplus, &args).await?;
        let res: ReaddirplusRes<'_> = reply.decode()?;
        let plus =
            |e: &EntryPlus<'_>| Listed { attr: e.attr, handle: e.handle.map(Fh::new), ..listed(&e.entry) };
        Ok(own(res, |ok| Page {
            dir_attr: ok.dir_attr,
            verf: ok.verf,
            entries: ok.entries.iter().map(plus).collect(),
            eof: ok.eof,
        }))
    }

    /// FSSTAT.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn fsstat(&self, root: &Fh) -> Answer<FsstatOk, PostOpAttr> {
        self.call(Proc3::Fsstat, &FsArgs { object: root.as_slice() }).await?.decode()
    }

    /// FSINFO.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn fsinfo(&self, root: &Fh) -> Answer<FsinfoOk, PostOpAttr> {
        self.call(Proc3::Fsinfo, &FsArgs { object: root.as_slice() }).await?.decode()
    }

    /// PATHCONF.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn pathconf(&self, object: &Fh) -> Answer<PathconfOk, PostOpAttr> {
        self.call(Proc3::Pathconf, &FsArgs { object: object.as_slice() }).await?.decode()
    }

    /// COMMIT.
    ///
    /// # Errors
    /// Those of the transport, as for all procedures.
    pub async fn commit(&self, file: &Fh, offset: u64, count: u32) -> Answer<CommitOk, WccData> {
        self.call(Proc3::Commit, &CommitArgs { file: file.as_slice(), offset, count }).await?.decode()
    }

    /// MNT of MOUNT version 3.
    ///
    /// # Errors
    /// Those of the transport, [`Error::Mount`] if it is refused.
    pub async fn mnt(&self, path: &str) -> Result<Mounted, Error> {
        let reply = self.call_mount(MountProc::Mnt, &DirPath(path.as_bytes())).await?;
        match reply.decode()? {
            MntRes::Ok { handle, flavors } => Ok(Mounted { root: Fh::new(handle), flavors }),
            MntRes::Err(status) => Err(Error::Mount(status)),
        }
    }

    /// UMNT of MOUNT version 3.
    ///
    /// # Errors
    /// Those of the transport.
    pub async fn umnt(&self, path: &str) -> Result<(), Error> {
        self.call_mount(MountProc::Umnt, &DirPath(path.as_bytes())).await?.decode()
    }

    /// UMNTALL of MOUNT version 3.
    ///
    /// # Errors
    /// Those of the transport.
    pub async fn umntall(&self) -> Result<(), Error> {
        self.call_mount(MountProc::UmntAll, &()).await?.decode()
    }

    /// DUMP of MOUNT version 3: (host, path) of every mount.
    ///
    /// # Errors
    /// Those of the transport.
    pub async fn dump(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        let reply = self.call_mount(MountProc::Dump, &()).await?;
        let list: MountList<'_> = reply.decode()?;
        Ok(list.0.iter().map(|e| (e.host.to_vec(), e.path.to_vec())).collect())
    }

    /// EXPORT of MOUNT version 3: path and groups of every export.
    ///
    /// # Errors
    /// Those of the transport.
    pub async fn exports(&self) -> Result<Vec<(Vec<u8>, Vec<Vec<u8>>)>, Error> {
        let reply = self.call_mount(MountProc::Export, &()).await?;
        let list: ExportList<'_> = reply.decode()?;
        let groups = |g: &Vec<&[u8]>| g.iter().map(|g| g.to_vec()).collect();
        Ok(list.0.iter().map(|e| (e.path.to_vec(), groups(&e.groups))).collect())
    }

    /// GETPORT of portmap version 2 for TCP; 0 if the program is not registered.
    ///
    /// # Errors
    /// Those of the transport.
    pub async fn getport(&self, prog: u32, vers: u32) -> Result<u32, Error> {
        let args = Mapping { prog, vers, prot: IPPROTO_TCP, port: 0 };
        let (prog, vers) = (program::PORTMAP, version::PORTMAP2);
        self.conn.start(prog, vers, proc2::GETPORT, &OpaqueAuth::NONE, &args).reply().await?.decode()
    }
}

/// The root of the export `path` of the server whose MOUNT is at `peer`.
///
/// # Errors
/// Those of the transport, [`Error::Mount`] if it is refused.
pub async fn mount(peer: SocketAddr, path: &str) -> Result<Fh, Error> {
    Ok(Client::connect(peer).await?.mnt(path).await?.root)
}

/// What a procedure returned, where a workload cannot go on without.
///
/// # Errors
/// [`Error::Nfs`] if it failed.
pub fn must<O, F>(proc: Proc3, res: Res3<O, F>) -> Result<O, Error> {
    res.into_result().map_err(|status| Error::Nfs { proc, status })
}
