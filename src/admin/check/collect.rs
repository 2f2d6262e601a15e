//! Asks every server of the ensemble, and has its answers judged.

use super::ask::{Asked, Servers};
use super::error::Error;
use super::judge::{Known, Names};
use super::merge::{Merge, Source};
use super::problem::Report;
use slice_proto::ids::{FileId, Role, ServerId};
use slice_proto::peer::PeerProc;
use slice_proto::peer::data::{self, ListArgs, ObjectInfo, ObjectsRes};
use slice_proto::peer::dir::{
    self, AttrInfo, EntryInfo, ListAttrsArgs, ListAttrsRes, ListEntriesArgs, ListEntriesRes,
};
use slice_proto::table::RoutingTable;
use slice_rpc::Directory;
use std::collections::HashSet;
use std::time::Duration;

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
    check(&Servers::new(directory, table, options)?, table, options).await
}

/// As [`run`], of servers that are at hand.
pub(super) async fn check(
    servers: &Servers,
    table: &RoutingTable,
    options: &Options,
) -> Result<Report, Error> {
    servers.settle(options.settle).await?;
    let mut found = list(table, servers).await?;
    found.passes = 1;
    while !found.clean() && found.passes < options.passes.max(1) {
        tokio::time::sleep(options.apart).await;
        servers.settle(options.settle).await?;
        let again = list(table, servers).await?;
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

/// All names of all directories, in order of directory and cookie; each with the servers that have it.
pub(super) async fn names(
    servers: &Servers,
    mut each: impl FnMut(ServerId, &EntryInfo),
) -> Result<(), Error> {
    let mut entries = Merge::new(servers.dirs.iter().cloned().map(Entries));
    while let Some(key) = entries.next_key().await? {
        entries.take(key).iter().for_each(|(server, e)| each(*server, e));
    }
    Ok(())
}

/// Lists everything once.
async fn list(table: &RoutingTable, servers: &Servers) -> Result<Report, Error> {
    let mut found = Names::default();
    names(servers, |_, e| found.entry(e)).await?;
    let mut files = found.files(table);
    let mut attrs = Merge::new(servers.dirs.iter().cloned().map(Attrs));
    let mut small = Merge::new(servers.small.iter().cloned().map(Objects));
    let mut block = Merge::new(servers.block.iter().cloned().map(Objects));
    loop {
        let keys = [attrs.next_key().await?, small.next_key().await?, block.next_key().await?];
        let Some(file) = keys.into_iter().flatten().min() else { break };
        let known = Known { attrs: attrs.take(file), small: small.take(file), block: block.take(file) };
        files.file(file, &known);
    }
    Ok(files.finish())
}
