//! Asks every server of the ensemble, and has its answers judged.

use super::error::Error;
use super::judge::{Known, Names};
use super::merge::{Merge, Source};
use super::problem::Report;
use bytes::BytesMut;
use slice_proto::ids::{FileId, Role, ServerId, Xid};
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::data::{self, ListArgs, ObjectInfo, ObjectsRes};
use slice_proto::peer::dir::{
    self, AttrInfo, EntryInfo, ListAttrsArgs, ListAttrsRes, ListEntriesArgs, ListEntriesRes, SettledRes,
};
use slice_proto::peer::{self, PeerProc};
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call};
use slice_proto::table::RoutingTable;
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::{Channel, Directory};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// How patient a check is.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a server may take for one answer: it may be starting.
    pub answer: Duration,
    /// How long the ensemble may take to settle; take-over of intentions is the slowest part of that.
    pub settle: Duration,
    /// How often the ensemble is listed at most before a problem counts as one: at least 1.
    pub passes: u32,
    /// How long to wait before listing again: a µproxy pushes sizes and times within a second.
    pub apart: Duration,
}

/// How often it is asked whether all is settled: nobody tells.
const SETTLE_POLL: Duration = Duration::from_millis(200);

impl Default for Options {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            settle: Duration::from_secs(120),
            passes: 3,
            apart: Duration::from_millis(1500),
        }
    }
}

/// A server that is asked.
#[derive(Clone)]
struct Asked {
    role: Role,
    server: ServerId,
    channel: Channel,
    patience: Duration,
}

impl Asked {
    /// Calls a private procedure; `None` if the server does not have it.
    async fn try_call<T: for<'a> Decode<'a>>(
        &self,
        proc: PeerProc,
        args: &impl Encode,
    ) -> Result<Option<T>, Error> {
        let Self { role, server, .. } = *self;
        let mut w = BytesMut::new();
        encode_call(&mut w, Xid(0), peer::PROGRAM, peer::VERSION, proc as u32, &OpaqueAuth::NONE);
        args.encode(&mut w);
        let reply = tokio::time::timeout(self.patience, self.channel.call(w.into()))
            .await
            .map_err(|_| Error::Silent { role, server, waited: self.patience })?
            .map_err(|source| Error::Call { role, server, source })?;
        let header = ReplyHeader::decode(&reply).map_err(Error::garbled(role, server))?;
        match header.status {
            ReplyStatus::Success => {}
            ReplyStatus::ProcUnavail | ReplyStatus::ProgUnavail => return Ok(None),
            status => return Err(Error::Garbled { role, server, why: format!("{status:?}") }),
        }
        T::decode(&mut Reader::at(&reply, header.body_at)).map(Some).map_err(Error::garbled(role, server))
    }

    async fn call<T: for<'a> Decode<'a>>(&self, proc: PeerProc, args: &impl Encode) -> Result<T, Error> {
        let Self { role, server, .. } = *self;
        let missing = || Error::Garbled { role, server, why: format!("it does not have {proc:?}") };
        self.try_call(proc, args).await?.ok_or_else(missing)
    }

    fn check(&self, what: &'static str, status: u32) -> Result<(), Error> {
        let Self { role, server, .. } = *self;
        if status == NfsStat3::OK.0 { Ok(()) } else { Err(Error::Refused { role, server, what, status }) }
    }
}

/// The attribute records of a directory server.
struct Attrs(Asked);

impl Source for Attrs {
    type Item = AttrInfo;
    type Key = FileId;

    fn whose(&self) -> (Role, ServerId) {
        (self.0.role, self.0.server)
    }

    fn key(item: &AttrInfo) -> FileId {
        item.file
    }

    async fn page(&self, after: FileId) -> Result<Vec<AttrInfo>, Error> {
        let args = ListAttrsArgs { after, limit: dir::MAX_LISTED };
        let res: ListAttrsRes = self.0.call(PeerProc::ListAttrs, &args).await?;
        self.0.check("LIST_ATTRS", res.status)?;
        Ok(res.attrs)
    }
}

/// The names of a directory server.
struct Entries(Asked);

impl Source for Entries {
    type Item = EntryInfo;
    type Key = (FileId, u64);

    fn whose(&self) -> (Role, ServerId) {
        (self.0.role, self.0.server)
    }

    fn key(item: &EntryInfo) -> (FileId, u64) {
        (item.dir, item.cookie)
    }

    async fn page(&self, (dir, cookie): (FileId, u64)) -> Result<Vec<EntryInfo>, Error> {
        let args = ListEntriesArgs { dir, cookie, limit: dir::MAX_LISTED };
        let res: ListEntriesRes = self.0.call(PeerProc::ListEntries, &args).await?;
        self.0.check("LIST_ENTRIES", res.status)?;
        Ok(res.entries)
    }
}

/// The objects of a data server.
struct Objects(Asked);

impl Source for Objects {
    type Item = ObjectInfo;
    type Key = FileId;

    fn whose(&self) -> (Role, ServerId) {
        (self.0.role, self.0.server)
    }

    fn key(item: &ObjectInfo) -> FileId {
        item.file
    }

    async fn page(&self, after: FileId) -> Result<Vec<ObjectInfo>, Error> {
        let args = ListArgs { after, limit: data::MAX_LISTED };
        let res: ObjectsRes = self.0.call(PeerProc::ListObjects, &args).await?;
        self.0.check("LIST_OBJECTS", res.status)?;
        Ok(res.objects)
    }
}

/// Checks the ensemble that `table` tells of, over channels of `directory`, which must know every server of the table and
/// say hello as [`Role::Admin`]. Waits until nothing is owed, held or intended any more, then lists; problems count if they
/// are found each of [`Options::passes`] times. Must run inside a `LocalSet`.
///
/// # Errors
/// An [`Error`] if the check could not be made. What it finds wrong is no error, but in the [`Report`].
pub async fn run(directory: &Directory, table: &RoutingTable, options: &Options) -> Result<Report, Error> {
    let servers = |role| -> Result<Vec<Asked>, Error> {
        // Servers that own sites, and those that own none any more but may still hold something.
        let ids = table.servers_of(role);
        let ask = |server| {
            let channel = directory.channel(server).map_err(|source| Error::Call { role, server, source })?;
            Ok(Asked { role, server, channel, patience: options.answer })
        };
        ids.map(ask).collect()
    };
    let (dirs, small, block) = (servers(Role::Dir)?, servers(Role::Small)?, servers(Role::Block)?);
    let coordinators = servers(Role::Coordinator)?;
    if dirs.is_empty() {
        return Err(Error::NoServers);
    }
    let all: Vec<&Asked> = dirs.iter().chain(&small).chain(&block).chain(&coordinators).collect();
    settle(&all, options.settle).await?;
    let mut found = list(table, &dirs, &small, &block).await?;
    found.passes = 1;
    while !found.clean() && found.passes < options.passes.max(1) {
        tokio::time::sleep(options.apart).await;
        settle(&all, options.settle).await?;
        let again = list(table, &dirs, &small, &block).await?;
        found = both(found, again);
    }
    Ok(found)
}

/// What both looks found wrong; the figures of the later one.
fn both(before: Report, after: Report) -> Report {
    let known: HashSet<_> = before.problems.into_iter().collect();
    let problems = after.problems.into_iter().filter(|p| known.contains(p)).collect();
    // Those that were not kept cannot be compared.
    Report { problems, more: before.more.min(after.more), passes: before.passes + 1, ..after }
}

/// Waits until no server has anything under way.
async fn settle(servers: &[&Asked], limit: Duration) -> Result<(), Error> {
    let until = Instant::now() + limit;
    loop {
        let mut unsettled = Vec::new();
        for asked in servers {
            // A server without the procedure has nothing that could be unsettled.
            if let Some(res) = asked.try_call::<SettledRes>(PeerProc::Settled, &()).await? {
                asked.check("SETTLED", res.status)?;
                if res.unsettled > 0 {
                    unsettled.push(format!("{} {}: {}", asked.role, asked.server, res.unsettled));
                }
            }
        }
        if unsettled.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            let unsettled = unsettled.join(", ");
            return Err(Error::Unsettled { unsettled, waited: limit });
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
}

/// Lists everything once.
async fn list(
    table: &RoutingTable,
    dirs: &[Asked],
    small: &[Asked],
    block: &[Asked],
) -> Result<Report, Error> {
    let mut names = Names::default();
    let mut entries = Merge::new(dirs.iter().cloned().map(Entries));
    while let Some(key) = entries.next_key().await? {
        entries.take(key).iter().for_each(|(_, e)| names.entry(e));
    }
    let mut files = names.files(table);
    let mut attrs = Merge::new(dirs.iter().cloned().map(Attrs));
    let mut small = Merge::new(small.iter().cloned().map(Objects));
    let mut block = Merge::new(block.iter().cloned().map(Objects));
    loop {
        let keys = [attrs.next_key().await?, small.next_key().await?, block.next_key().await?];
        let Some(file) = keys.into_iter().flatten().min() else { break };
        let known = Known { attrs: attrs.take(file), small: small.take(file), block: block.take(file) };
        files.file(file, &known);
    }
    Ok(files.finish())
}
