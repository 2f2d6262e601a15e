//! The small-file server and the block storage node: bytes of files, several of them at once.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_proto::ids::{Epoch, FileId, Site, Xid};
use slice_proto::nfs3::{
    CommitArgs, CommitRes, Proc3, ReadArgs, ReadRes, Res3, StableHow, Verifier, WriteArgs, WriteRes,
};
use slice_proto::peer::PeerProc;
use slice_proto::peer::data::{
    DataRes, ExtendArgs, ObjectInfo, ObjectsRes, PurgeArgs, Sites, StatArgs, TruncateArgs,
};
use slice_proto::rpc_msg::{OpaqueAuth, encode_call, program, version};
use slice_proto::trailer::{CallTrailer, ResultTrailer};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::tables::{Tables, TablesSender, tables};

use super::kind::Kind;
use super::round::{Dark, Life, Role};
use super::wire::{self, TABLE};

/// Files at work at once.
const FILES: u16 = 8;

const PAGE: usize = 4096;

/// Purged files that each keeps in mind.
const GONE: usize = 6;

/// What a write puts at an offset: no two writes the same, so that a byte tells whose it is.
fn pattern(tag: u64, at: usize) -> u8 {
    let mixed =
        (tag + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at as u64 + 1).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 56) as u8
}

/// A write that nobody made durable yet. Offsets count from the first byte that the server holds.
#[derive(Debug, Clone, Copy)]
struct Written {
    at: usize,
    len: usize,
    tag: u64,
}

/// What was under way at the cut, beyond a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    Truncate(usize),
    Purge,
}

/// A file, as its only client knows it.
struct Held {
    slot: u16,
    sequence: u64,
    epoch: u64,
    /// The highest epoch that the server has said to be durable.
    sure_epoch: u64,
    /// As it reads now; zeros behind the size.
    live: Vec<u8>,
    size: usize,
    /// As it certainly reads after a cut, but for what was written since.
    sure: Vec<u8>,
    sure_size: usize,
    since: Vec<Written>,
    doubt: Doubt,
    gone: Vec<(FileId, u64)>,
    tag: u64,
    acknowledged: u64,
    rng: StdRng,
}

/// The calls of one life.
struct Caller<'a, K: Kind> {
    life: &'a Life,
    server: Arc<K::Server>,
}

type Status<T> = Result<T, u32>;

impl<K: Kind> Caller<'_, K> {
    async fn nfs(&self, proc: Proc3, args: &impl Encode, epoch: u64) -> Status<Bytes> {
        let mut record = BytesMut::new();
        encode_call(&mut record, Xid(9), program::NFS, version::NFS3, proc as u32, &OpaqueAuth::NONE);
        args.encode(&mut record);
        CallTrailer { xid: Xid(1), table: TABLE, epoch: Epoch(epoch), ..CallTrailer::default() }
            .append(&mut record);
        let reply = wire::send(&*self.server, record).await.ok_or(u32::MAX)?;
        let whole = wire::body(&reply);
        let front = ResultTrailer::split(&whole).unwrap().0.len();
        let body = whole.slice(..front);
        if body.len() == 4 { Err(u32::from_be_bytes(body[..].try_into().unwrap())) } else { Ok(body) }
    }

    async fn write(
        &self,
        file: FileId,
        epoch: u64,
        at: u64,
        data: &[u8],
        stable: StableHow,
    ) -> Status<(StableHow, Verifier)> {
        let file = wire::handle(file);
        let args = WriteArgs { file: &file, offset: at, count: data.len() as u32, stable, data };
        let body = self.nfs(Proc3::Write, &args, epoch).await?;
        let ok = WriteRes::decode(&mut Reader::new(&body)).unwrap().into_result().map_err(|s| s.0)?;
        // Power that goes in the middle of a write leaves its front; what that is good for is not looked at.
        assert!(ok.count as usize == data.len() || self.life.is_dark());
        if ok.count as usize == data.len() { Ok((ok.committed, ok.verf)) } else { Err(0) }
    }

    async fn commit(&self, file: FileId) -> Status<Verifier> {
        let file = wire::handle(file);
        let body = self.nfs(Proc3::Commit, &CommitArgs { file: &file, offset: 0, count: 0 }, 0).await?;
        CommitRes::decode(&mut Reader::new(&body)).unwrap().into_result().map(|ok| ok.verf).map_err(|s| s.0)
    }

    async fn read(&self, file: FileId, at: u64, count: u32) -> Status<Vec<u8>> {
        let file = wire::handle(file);
        let body = self.nfs(Proc3::Read, &ReadArgs { file: &file, offset: at, count }, 0).await?;
        match ReadRes::decode(&mut Reader::new(&body)).unwrap() {
            Res3::Ok(ok) => Ok(ok.data.to_vec()),
            Res3::Err(status, _) => Err(status.0),
        }
    }

    /// From `at` of what the server holds, as much as it has.
    async fn bytes(&self, file: FileId, at: usize, len: usize) -> Status<Vec<u8>> {
        const PART: usize = 512 << 10;
        let mut all = Vec::new();
        while all.len() < len {
            let want = PART.min(len - all.len());
            let got = self.read(file, K::FROM + (at + all.len()) as u64, want as u32).await?;
            all.extend_from_slice(&got);
            if got.len() < want {
                break;
            }
        }
        Ok(all)
    }

    async fn private(&self, proc: PeerProc, args: &impl Encode) -> Status<()> {
        let res: DataRes = wire::private(&*self.server, proc as u32, args).await.ok_or(u32::MAX)?;
        if res.status == 0 { Ok(()) } else { Err(res.status) }
    }

    async fn truncate(&self, file: FileId, epoch: u64, size: u64) -> Status<()> {
        let args =
            TruncateArgs { table: TABLE, sites: Sites(K::sites(file)), file, epoch: Epoch(epoch), size };
        self.private(PeerProc::Truncate, &args).await
    }

    async fn purge(&self, file: FileId, epoch: u64) -> Status<()> {
        let args = PurgeArgs { table: TABLE, sites: Sites(K::sites(file)), file, epoch: Epoch(epoch) };
        self.private(PeerProc::Purge, &args).await
    }

    async fn extend(&self, file: FileId, epoch: u64, size: u64) -> Status<()> {
        let args = ExtendArgs { table: TABLE, file, epoch: Epoch(epoch), size, durable: true };
        self.private(PeerProc::Extend, &args).await
    }

    async fn stat(&self, file: FileId) -> Status<Option<ObjectInfo>> {
        let args = StatArgs { table: TABLE, file };
        let res: ObjectsRes =
            wire::private(&*self.server, PeerProc::Stat as u32, &args).await.ok_or(u32::MAX)?;
        if res.status == 0 { Ok(res.objects.into_iter().next()) } else { Err(res.status) }
    }
}

impl Held {
    fn new(slot: u16, limit: usize, rng: StdRng) -> Self {
        Self {
            slot,
            sequence: 1,
            epoch: 1,
            sure_epoch: 0,
            live: vec![0; limit],
            size: 0,
            sure: vec![0; limit],
            sure_size: 0,
            since: Vec::new(),
            doubt: Doubt::None,
            gone: Vec::new(),
            tag: 0,
            acknowledged: 0,
            rng,
        }
    }

    fn file(&self) -> FileId {
        FileId::new(Site(self.slot), self.sequence)
    }

    /// Everything that was written is durable.
    fn committed(&mut self) {
        self.sure.clone_from(&self.live);
        self.sure_size = self.size;
        self.since.clear();
    }

    /// The file was cut.
    fn truncated(&mut self, size: usize) {
        self.epoch += 1;
        self.sure_epoch = self.epoch;
        self.live[size..].fill(0);
        self.sure[size..].fill(0);
        self.since.retain_mut(|w| {
            w.len = w.len.min(size.saturating_sub(w.at));
            w.len > 0
        });
        (self.size, self.sure_size) = (size, size);
        self.doubt = Doubt::None;
    }

    /// The file is no more: another one takes its place.
    fn purged(&mut self) {
        self.gone.push((self.file(), self.epoch + 1));
        if self.gone.len() > GONE {
            self.gone.remove(0);
        }
        self.sequence += 1;
        (self.epoch, self.sure_epoch, self.doubt) = (1, 0, Doubt::None);
        self.live.fill(0);
        self.size = 0;
        self.committed();
    }

    /// What a file of this size has here.
    fn held<K: Kind>(size: u64) -> usize {
        (size.saturating_sub(K::FROM) as usize).min((K::LIMIT - K::FROM) as usize)
    }

    /// A truncation or a purge that was under way at the cut may have reached the bytes and not the epoch. Somebody always
    /// does it again: an intention, or what a home site owes.
    async fn roll_forward<K: Kind>(&mut self, c: &Caller<'_, K>) -> Result<(), Dark> {
        let (file, epoch) = (self.file(), self.epoch + 1);
        match self.doubt {
            Doubt::None => {}
            Doubt::Purge => {
                c.life.good("PURGE again", c.life.lit(c.purge(file, epoch)).await?)?;
                self.purged();
            }
            Doubt::Truncate(size) => {
                c.life.good(
                    "TRUNCATE again",
                    c.life.lit(c.truncate(file, epoch, K::FROM + size as u64)).await?,
                )?;
                // A block storage node does not make up for growth that is lost.
                let least = if K::SMALL { size } else { size.min(self.sure_size) };
                self.truncated(size);
                self.sure_size = least;
            }
        }
        Ok(())
    }

    /// After a cut: what is there must be what was durable, or was written since. It is what the file is from now on.
    async fn judge<K: Kind>(&mut self, c: &Caller<'_, K>) -> Result<(), Dark> {
        self.judge_gone(c).await?;
        self.roll_forward(c).await?;
        let file = self.file();
        let info = c.life.good("STAT", c.life.lit(c.stat(file)).await?)?;
        assert!(
            info.as_ref().is_none_or(|info| !info.tombstone),
            "{file} is purged, and nobody asked for it"
        );
        let (epoch, known) = (info.as_ref().map_or(0, |info| info.epoch.0), self.sure_epoch..=self.epoch);
        assert!(known.contains(&epoch), "{file}: epoch {epoch}, {known:?} is known");
        let size = Self::held::<K>(info.map_or(0, |info| info.size));
        let sizes = self.sure_size..=self.size;
        assert!(sizes.contains(&size), "{file}: size {size}, it must be in {sizes:?}");
        let got = c.life.good("READ", c.life.lit(c.bytes(file, 0, size)).await?)?;
        assert_eq!(got.len(), size, "{file}: READ is short");
        // Most pages are as they were; the others are looked at byte by byte.
        let differ = (0..size).step_by(PAGE).filter(|from| {
            let page = *from..size.min(from + PAGE);
            got[page.clone()] != self.sure[page]
        });
        for at in differ.flat_map(|from| from..size.min(from + PAGE)).filter(|at| got[*at] != self.sure[*at])
        {
            let written = |w: &Written| (w.at..w.at + w.len).contains(&at) && pattern(w.tag, at) == got[at];
            assert!(
                self.since.iter().any(written),
                "{file}: byte {at} of {size} is {}, not {}, and was not written since",
                got[at],
                self.sure[at]
            );
        }
        self.live.fill(0);
        self.live[..size].copy_from_slice(&got);
        self.size = size;
        self.committed();
        Ok(())
    }

    /// Purged files stay so, and no late write brings them back (I9).
    async fn judge_gone<K: Kind>(&mut self, c: &Caller<'_, K>) -> Result<(), Dark> {
        for (file, epoch) in &self.gone {
            let info = c.life.good("STAT of a purged file", c.life.lit(c.stat(*file)).await?)?;
            let purged = info.as_ref().is_some_and(|info| info.tombstone && info.epoch.0 >= *epoch);
            assert!(purged, "{file} was purged, and is {info:?}");
            let late = c.life.lit(c.write(*file, epoch - 1, K::FROM, b"late", StableHow::FileSync)).await?;
            assert!(late.is_err(), "{file} was purged, and takes a write");
        }
        Ok(())
    }

    /// One operation.
    async fn step<K: Kind>(&mut self, c: &Caller<'_, K>) -> Result<(), Dark> {
        let (life, file, limit) = (c.life, self.file(), (K::LIMIT - K::FROM) as usize);
        match self.rng.random_range(0..100) {
            0..60 => self.write(c).await?,
            60..75 => {
                life.good("COMMIT", life.lit(c.commit(file)).await?)?;
                self.committed();
            }
            75..85 => {
                // To less for the most part: growth by SETATTR is small.
                let most = [self.size, limit][usize::from(self.rng.random_ratio(1, 4))];
                let size = self.rng.random_range(0..=most);
                // A block storage node does not learn of growth.
                let size = if K::SMALL { size } else { size.min(self.size) };
                self.doubt = Doubt::Truncate(size);
                life.good(
                    "TRUNCATE",
                    life.lit(c.truncate(file, self.epoch + 1, K::FROM + size as u64)).await?,
                )?;
                self.truncated(size);
            }
            85..88 => {
                self.doubt = Doubt::Purge;
                life.good("PURGE", life.lit(c.purge(file, self.epoch + 1)).await?)?;
                self.purged();
            }
            88..92 if K::SMALL => {
                let size = self.rng.random_range(0..=limit);
                self.size = self.size.max(size);
                life.good("EXTEND", life.lit(c.extend(file, self.epoch, size as u64)).await?)?;
                self.sure_size = self.sure_size.max(size);
            }
            _ => {
                let at = self.rng.random_range(0..limit);
                let len = self.rng.random_range(0..K::WRITE).min(limit - at);
                let got = life.good("READ", life.lit(c.bytes(file, at, len)).await?)?;
                let want = &self.live[at..(at + len).min(self.size).max(at)];
                assert!(got == want, "{file}: READ {at}+{len} of {}", self.size);
            }
        }
        self.acknowledged += 1;
        Ok(())
    }

    async fn write<K: Kind>(&mut self, c: &Caller<'_, K>) -> Result<(), Dark> {
        let limit = (K::LIMIT - K::FROM) as usize;
        let at = self.rng.random_range(0..limit);
        let most = [100, K::WRITE][self.rng.random_range(0..2)].min(limit - at);
        let len = self.rng.random_range(1..=most);
        self.tag += 1;
        let (tag, file) = (self.tag, self.file());
        let data: Vec<u8> = (at..at + len).map(|at| pattern(tag, at)).collect();
        // From here on it may be there.
        self.since.push(Written { at, len, tag });
        self.size = self.size.max(at + len);
        let stable = [StableHow::Unstable, StableHow::FileSync][usize::from(self.rng.random_ratio(2, 5))];
        let wrote = c.write(file, self.epoch, K::FROM + at as u64, &data, stable);
        let (committed, _) = c.life.good("WRITE", c.life.lit(wrote).await?)?;
        assert!(committed >= stable);
        self.live[at..at + len].copy_from_slice(&data);
        if committed == StableHow::FileSync {
            // Both servers make all of a file durable, or nothing.
            self.committed();
        }
        Ok(())
    }
}

/// A server of one kind and its files.
pub struct Data<K> {
    files: Vec<Held>,
    tables: (TablesSender, Tables),
    verifier: Option<Verifier>,
    kind: std::marker::PhantomData<K>,
}

impl<K: Kind> Role for Data<K> {
    const NAME: &'static str = K::NAME;
    const CHANGES: u64 = K::CHANGES;

    fn new(mut rng: StdRng) -> Self {
        let (sender, follower) = tables();
        sender.publish(wire::table());
        let limit = (K::LIMIT - K::FROM) as usize;
        let file = |slot| Held::new(slot, limit, StdRng::seed_from_u64(rng.random()));
        let files = (0..FILES).map(file).collect();
        Self { files, tables: (sender, follower), verifier: None, kind: std::marker::PhantomData }
    }

    fn format(data: &Path) -> Result<(), String> {
        K::format(data)
    }

    async fn make(&mut self, data: &Path) {
        let server = K::open(data, self.tables.1.clone()).await.unwrap();
        K::adopt(&server).await;
    }

    async fn live(&mut self, life: &Life) -> Result<(), Dark> {
        let server = life.good("it does not open", K::open(life.data(), self.tables.1.clone()).await)?;
        tokio::task::spawn_local(K::run(Arc::clone(&server)));
        let c = Caller::<K> { life, server };
        for file in &mut self.files {
            file.judge(&c).await?;
        }
        let verifier = life.good("COMMIT", life.lit(c.commit(self.files[0].file())).await?)?;
        assert_ne!(self.verifier.replace(verifier), Some(verifier), "what may be lost must show (I7)");
        if life.last {
            K::shutdown(&c.server).await;
            return Ok(());
        }
        life.load();
        let work = self.files.iter_mut().map(|file| async {
            loop {
                file.step(&c).await?;
            }
        });
        try_join_all(work).await.map(|_: Vec<()>| ())
    }

    fn acknowledged(&self) -> u64 {
        self.files.iter().map(|file| file.acknowledged).sum()
    }
}
