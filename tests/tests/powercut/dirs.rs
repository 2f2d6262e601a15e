//! Two directory servers that know each other, and the calls of one life of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use slice_dirserver::{DirConfig, DirServer};
use slice_proto::ids::{Epoch, FileId, IntentionId, Role as Place, ServerId, Site};
use slice_proto::nfs3::FType3;
use slice_proto::peer::PeerProc;
use slice_proto::peer::data::{DataRes, ExtendArgs, PurgeArgs, TruncateArgs};
use slice_proto::peer::dir::{
    AttrInfo, EntryInfo, ListAttrsArgs, ListAttrsRes, ListEntriesArgs, ListEntriesRes,
};
use slice_proto::peer::intent::{CompleteArgs, LogArgs, LogRes};
use slice_proto::placement::entry_site;
use slice_proto::rpc_msg::{CallHeader, encode_success};
use slice_proto::trailer::ResultTrailer;
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::clock::SystemClock;
use slice_rpc::service::{Handled, Message, Peer, Service};
use slice_rpc::{Directory, Me, Target};

use super::round::{Dark, Life};
use super::wire::{self, BLOCK, COORDINATOR, DIRS, SMALL, TABLE};

/// A call as it was sent: for a retransmission.
#[derive(Debug, Clone)]
pub struct Sent {
    pub server: ServerId,
    pub record: BytesMut,
}

/// Data servers and a coordinator that keep nothing: they are on other machines.
#[derive(Default)]
pub struct Elsewhere {
    epochs: Mutex<BTreeMap<FileId, Epoch>>,
    intents: Mutex<u64>,
}

impl Elsewhere {
    fn newer(&self, file: FileId, epoch: Epoch) -> DataRes {
        let mut epochs = self.epochs.lock();
        let known = epochs.entry(file).or_default();
        *known = epoch.max(*known);
        DataRes { status: 0, epoch: *known, table: TABLE }
    }
}

impl Service for Elsewhere {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let call = CallHeader::decode(&record).unwrap();
        let args = &mut Reader::at(&record, call.args_at);
        let out = &mut reply.head;
        encode_success(out, call.xid);
        match PeerProc::from_u32(call.proc).unwrap() {
            PeerProc::Truncate => {
                let args = TruncateArgs::decode(args).unwrap();
                self.newer(args.file, args.epoch).encode(out);
            }
            PeerProc::Purge => {
                let args = PurgeArgs::decode(args).unwrap();
                self.newer(args.file, args.epoch).encode(out);
            }
            PeerProc::Extend => {
                let args = ExtendArgs::decode(args).unwrap();
                self.newer(args.file, args.epoch).encode(out);
            }
            PeerProc::IntentLog => {
                LogArgs::decode(args).unwrap();
                let mut intents = self.intents.lock();
                *intents += 1;
                LogRes { status: 0, id: IntentionId(*intents) }.encode(out);
            }
            PeerProc::IntentComplete => {
                CompleteArgs::decode(args).unwrap();
                0u32.encode(out);
            }
            other => panic!("{other:?}"),
        }
        Handled::Done
    }
}

/// The calls of one life.
pub struct Caller<'a> {
    pub life: &'a Life,
    pub servers: [Arc<DirServer>; 2],
    directories: [Directory; 2],
}

/// Servers know each other, in circles: without this no life would end.
impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.directories.iter().for_each(|directory| directory.replace([]));
    }
}

pub fn config(data: &Path, which: usize) -> DirConfig {
    let mut config = DirConfig::new(data.join(format!("d{which}")), wire::identity(), DIRS[which]);
    // Most records come from the store.
    config.cache_bytes = 64 << 10;
    config
}

fn owner(site: Site) -> ServerId {
    DIRS[usize::from(site.0) % 2]
}

pub fn file_of(fh: &[u8]) -> FileId {
    wire::keys().open(fh).unwrap().file
}

pub fn at_name(dir: &[u8], name: &[u8]) -> ServerId {
    owner(entry_site(&wire::volume(), file_of(dir), name))
}

pub fn at_home(fh: &[u8]) -> ServerId {
    owner(file_of(fh).home())
}

impl<'l> Caller<'l> {
    pub async fn open(
        life: &'l Life,
        elsewhere: Arc<Elsewhere>,
        follower: &slice_rpc::tables::Tables,
    ) -> Result<Self, Dark> {
        let directories = DIRS.map(|server| {
            let me = Me { identity: wire::identity(), role: Place::Dir, server };
            let directory = Directory::new(Some(Arc::new(me)));
            for id in [SMALL, BLOCK, COORDINATOR] {
                directory.set(id, Target::InProcess(Arc::clone(&elsewhere) as _));
            }
            directory
        });
        let mut servers = Vec::new();
        for (which, directory) in directories.iter().enumerate() {
            let clock = Arc::new(SystemClock);
            let (config, directory) = (config(life.data(), which), directory.clone());
            let opened = DirServer::open(config, follower.clone(), directory, clock).await;
            servers.push(life.good("it does not open", opened.map_err(|error| error.to_string()))?);
        }
        for (id, server) in DIRS.into_iter().zip(&servers) {
            directories.iter().for_each(|d| d.set(id, Target::InProcess(Arc::clone(server) as _)));
        }
        Ok(Self { life, servers: servers.try_into().ok().unwrap(), directories })
    }

    pub fn run(&self) {
        self.servers.iter().for_each(|server| {
            tokio::task::spawn_local(Arc::clone(server).run());
        });
    }

    fn server(&self, id: ServerId) -> &DirServer {
        &self.servers[usize::from(id == DIRS[1])]
    }

    /// The result, without header and trailer.
    pub async fn send(&self, sent: &Sent) -> Result<Bytes, Dark> {
        let reply = self.life.lit(wire::send(self.server(sent.server), sent.record.clone())).await?;
        let whole = wire::body(&self.life.good("it closes", reply.ok_or("closed"))?);
        let front = ResultTrailer::split(&whole).unwrap().0.len();
        Ok(whole.slice(..front))
    }

    /// Waits until nothing is owed, held or under way.
    pub async fn settle(&self) -> Result<(), Dark> {
        let settled = async {
            while self.servers.iter().any(|server| server.stats().unsettled > 0) {
                // Nothing tells of it.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        self.life.lit(settled).await
    }

    async fn list<T, R: for<'a> Decode<'a>, A: Encode>(
        &self,
        proc: PeerProc,
        mut args: impl FnMut(Option<&T>) -> A,
        items: impl Fn(R) -> (u32, Vec<T>),
    ) -> Result<Vec<T>, Dark> {
        let mut all: Vec<T> = Vec::new();
        for server in &self.servers {
            let mut last = None;
            loop {
                let args = args(last.as_ref());
                let listed = wire::private::<R>(&**server, proc as u32, &args);
                let listed = self.life.good("it closes", self.life.lit(listed).await?.ok_or("closed"))?;
                let (status, page) = items(listed);
                self.life.good("a listing", if status == 0 { Ok(()) } else { Err(status) })?;
                all.extend(last.take());
                let end = page.len() < PAGE as usize;
                all.extend(page);
                if end {
                    break;
                }
                last = all.pop();
            }
        }
        Ok(all)
    }

    /// Every entry has a record, every record its entries, links and counts are right (`slice admin check`).
    pub async fn consistent(&self) -> Result<(), Dark> {
        let args = |last: Option<&AttrInfo>| ListAttrsArgs {
            after: last.map_or(FileId(0), |a| a.file),
            limit: PAGE,
        };
        let attrs = self.list(PeerProc::ListAttrs, args, |r: ListAttrsRes| (r.status, r.attrs)).await?;
        let args = |last: Option<&EntryInfo>| {
            let (dir, cookie) = last.map_or((FileId(0), 0), |e| (e.dir, e.cookie));
            ListEntriesArgs { dir, cookie, limit: PAGE }
        };
        let entries =
            self.list(PeerProc::ListEntries, args, |r: ListEntriesRes| (r.status, r.entries)).await?;
        let records: BTreeMap<_, _> = attrs.iter().map(|a| (a.file, a)).collect();
        assert_eq!(records.len(), attrs.len(), "a record at two servers");
        let (mut links, mut counts) = (BTreeMap::<_, u32>::new(), BTreeMap::<_, (u64, u32)>::new());
        for e in &entries {
            let child = records.get(&e.child.file).unwrap_or_else(|| panic!("{e:?} has no record"));
            *links.entry(e.child.file).or_default() += 1;
            let (n, dirs) = counts.entry(e.dir).or_default();
            *n += 1;
            *dirs += u32::from(child.ftype == FType3::Dir as u32);
        }
        let root = wire::volume().root;
        for a in &attrs {
            let names = links.get(&a.file).copied().unwrap_or_default();
            let (n, dirs) = counts.get(&a.file).copied().unwrap_or_default();
            let right = if a.ftype == FType3::Dir as u32 {
                names == u32::from(a.file != root) && (a.entries, a.nlink) == (n, 2 + dirs)
            } else {
                names == a.nlink
            };
            assert!(right, "{a:?} has {names} names, {n} entries, {dirs} directories in it");
        }
        assert!(
            counts.keys().all(|dir| records.contains_key(dir)),
            "entries of a directory that is not there"
        );
        Ok(())
    }
}

const PAGE: u32 = 500;
