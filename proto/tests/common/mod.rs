//! Makes values of every protocol type from a stream of bytes, so that proptest can draw and shrink them.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop at the first surprise")]

use slice_proto::ids::FileId;
use slice_proto::nfs3::*;
use slice_proto::rpc_msg::{AuthSys, Cred, Gids};

/// Draws from `bytes`; zeros when they are used up.
pub struct Gen<'a> {
    bytes: &'a [u8],
}

impl<'a> Gen<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub fn opaque(&mut self, max: usize) -> &'a [u8] {
        let len = usize::from(self.u8()) % (max + 1);
        let (head, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest;
        head
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let n = N.min(self.bytes.len());
        let (head, rest) = self.bytes.split_at(n);
        out[..n].copy_from_slice(head);
        self.bytes = rest;
        out
    }

    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    pub fn bool(&mut self) -> bool {
        self.u8() % 2 == 1
    }

    pub fn opt<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.bool().then(|| f(self))
    }

    pub fn many<T>(&mut self, max: usize, mut f: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = usize::from(self.u8()) % (max + 1);
        (0..n).map(|_| f(self)).collect()
    }

    pub fn fh(&mut self) -> &'a [u8] {
        self.opaque(64)
    }

    pub fn name(&mut self) -> &'a [u8] {
        self.opaque(40)
    }

    pub fn time(&mut self) -> NfsTime3 {
        NfsTime3 { seconds: self.u32(), nseconds: self.u32() }
    }

    pub fn ftype(&mut self) -> FType3 {
        FType3::from_u32(1 + u32::from(self.u8()) % 7).unwrap()
    }

    pub fn stable(&mut self) -> StableHow {
        StableHow::from_u32(u32::from(self.u8()) % 3).unwrap()
    }

    pub fn spec(&mut self) -> SpecData3 {
        SpecData3 { major: self.u32(), minor: self.u32() }
    }

    pub fn attr(&mut self) -> Fattr3 {
        Fattr3 {
            ftype: self.ftype(),
            mode: self.u32(),
            nlink: self.u32(),
            uid: self.u32(),
            gid: self.u32(),
            size: self.u64(),
            used: self.u64(),
            rdev: self.spec(),
            fsid: self.u64(),
            fileid: FileId(self.u64()),
            atime: self.time(),
            mtime: self.time(),
            ctime: self.time(),
        }
    }

    pub fn post(&mut self) -> PostOpAttr {
        self.opt(Self::attr)
    }

    pub fn wcc(&mut self) -> WccData {
        let before = self.opt(|g| WccAttr { size: g.u64(), mtime: g.time(), ctime: g.time() });
        WccData { before, after: self.post() }
    }

    pub fn time_how(&mut self) -> TimeHow {
        match self.u8() % 3 {
            0 => TimeHow::DontChange,
            1 => TimeHow::ServerTime,
            _ => TimeHow::Client(self.time()),
        }
    }

    pub fn sattr(&mut self) -> Sattr3 {
        Sattr3 {
            mode: self.opt(Self::u32),
            uid: self.opt(Self::u32),
            gid: self.opt(Self::u32),
            size: self.opt(Self::u64),
            atime: self.time_how(),
            mtime: self.time_how(),
        }
    }

    pub fn dirop(&mut self) -> DirOp<'a> {
        DirOp { dir: self.fh(), name: self.name() }
    }

    pub fn how(&mut self) -> CreateHow {
        match self.u8() % 3 {
            0 => CreateHow::Unchecked(self.sattr()),
            1 => CreateHow::Guarded(self.sattr()),
            _ => CreateHow::Exclusive(self.array()),
        }
    }

    pub fn mknod(&mut self) -> MknodWhat {
        match self.ftype() {
            FType3::Chr => MknodWhat::Chr(self.sattr(), self.spec()),
            FType3::Blk => MknodWhat::Blk(self.sattr(), self.spec()),
            FType3::Sock => MknodWhat::Sock(self.sattr()),
            FType3::Fifo => MknodWhat::Fifo(self.sattr()),
            other => MknodWhat::Other(other),
        }
    }

    pub fn verf(&mut self) -> Verifier {
        Verifier(self.array())
    }

    pub fn entry(&mut self) -> Entry<'a> {
        Entry { fileid: FileId(self.u64()), name: self.name(), cookie: self.u64() }
    }

    pub fn entry_plus(&mut self) -> EntryPlus<'a> {
        EntryPlus { entry: self.entry(), attr: self.post(), handle: self.opt(Self::fh) }
    }

    pub fn auth_sys(&mut self) -> AuthSys<'a> {
        let gids = self.many(16, Self::u32);
        AuthSys {
            stamp: self.u32(),
            machine: self.opaque(255),
            cred: Cred { uid: self.u32(), gid: self.u32(), gids: Gids::new(&gids) },
        }
    }

    /// A success or a failure.
    pub fn res<O, F>(
        &mut self,
        ok: impl FnOnce(&mut Self) -> O,
        fail: impl FnOnce(&mut Self) -> F,
    ) -> Res3<O, F> {
        if self.bool() {
            Res3::Ok(ok(self))
        } else {
            let status = NfsStat3::ALL[1 + usize::from(self.u8()) % (NfsStat3::ALL.len() - 1)];
            Res3::Err(status, fail(self))
        }
    }

    pub fn lookup_res(&mut self) -> LookupRes<'a> {
        self.res(|g| LookupOk { object: g.fh(), attr: g.post(), dir_attr: g.post() }, Self::post)
    }

    pub fn create_res(&mut self) -> CreateRes<'a> {
        self.res(|g| CreateOk { object: g.opt(Self::fh), attr: g.post(), dir_wcc: g.wcc() }, Self::wcc)
    }

    pub fn read_res(&mut self) -> ReadRes<'a> {
        self.res(
            |g| {
                let data = g.opaque(200);
                ReadOk { attr: g.post(), count: data.len() as u32, eof: g.bool(), data }
            },
            Self::post,
        )
    }

    pub fn write_res(&mut self) -> WriteRes {
        self.res(
            |g| WriteOk { wcc: g.wcc(), count: g.u32(), committed: g.stable(), verf: g.verf() },
            Self::wcc,
        )
    }

    pub fn rename_res(&mut self) -> RenameRes {
        let both = |g: &mut Self| RenameOk { from_wcc: g.wcc(), to_wcc: g.wcc() };
        self.res(both, both)
    }

    pub fn link_res(&mut self) -> LinkRes {
        let both = |g: &mut Self| LinkOk { attr: g.post(), dir_wcc: g.wcc() };
        self.res(both, both)
    }

    pub fn readdirplus_res(&mut self) -> ReaddirplusRes<'a> {
        self.res(
            |g| ReaddirplusOk {
                dir_attr: g.post(),
                verf: CookieVerf(g.array()),
                entries: g.many(8, Self::entry_plus),
                eof: g.bool(),
            },
            Self::post,
        )
    }

    pub fn readdir_res(&mut self) -> ReaddirRes<'a> {
        self.res(
            |g| ReaddirOk {
                dir_attr: g.post(),
                verf: CookieVerf(g.array()),
                entries: g.many(8, Self::entry),
                eof: g.bool(),
            },
            Self::post,
        )
    }
}
