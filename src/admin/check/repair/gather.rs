//! Looks closer at what problems are about.
//!
//! ```text
//! INSPECT every record ─▶ LIST_ENTRIES of all servers ─▶ SETTLED everywhere
//! ```
//! In this order: a record that is the same when it is repaired has not changed since before its names were counted, and nothing
//! that the count saw was still on its way to the record.

use super::super::ask::{Asked, Servers};
use super::super::collect::{Options, names};
use super::super::error::Error;
use super::super::problem::Problem;
use super::facts::{Facts, Record};
use slice_proto::ids::{FileId, Role};
use slice_proto::peer::PeerProc;
use slice_proto::peer::data::{ObjectsRes, StatArgs};
use slice_proto::peer::repair::{InspectArgs, InspectRes};
use slice_proto::placement::small_site;
use slice_proto::table::RoutingTable;

/// All that is to be known of these problems.
pub async fn gather<'t>(
    servers: &Servers,
    table: &'t RoutingTable,
    options: &Options,
    problems: &[Problem],
) -> Result<Facts<'t>, Error> {
    let mut facts = Facts::new(table, problems.iter().cloned());
    for file in facts.files() {
        let record = inspect(servers, table, file).await?;
        facts.record(file, record);
    }
    names(servers, |server, e| facts.entry(server, e)).await?;
    objects(servers, table, problems, &mut facts).await?;
    servers.settle(options.settle).await?;
    Ok(facts)
}

/// A file's attribute record as it is now.
pub async fn inspect(servers: &Servers, table: &RoutingTable, file: FileId) -> Result<Record, Error> {
    let home = table.owner(Role::Dir, file.home()).and_then(|s| servers.get(Role::Dir, s));
    // A file id that names no site was never anybody's.
    let Some(home) = home else { return Ok(Record::Gone) };
    let args = InspectArgs { table: table.epoch, file };
    let res: InspectRes = home.call(PeerProc::Inspect, &args).await?;
    Ok(match (res.status, res.seen) {
        (0, Some(seen)) => Record::Is(seen),
        (0, None) => Record::Gone,
        _ => Record::Busy,
    })
}

/// Looks at the objects that problems are about.
async fn objects(
    servers: &Servers,
    table: &RoutingTable,
    problems: &[Problem],
    facts: &mut Facts<'_>,
) -> Result<(), Error> {
    let mut last = None;
    for problem in problems {
        match problem {
            Problem::SmallSize { file, .. }
            | Problem::Beyond { file, .. }
            | Problem::BytesBeyondSize { file, .. }
            | Problem::BytesBeyondReach { file, .. }
            | Problem::EpochAhead { file, .. } => {
                if facts.objects_of(*file).next().is_some() || last == Some(*file) {
                    continue;
                }
                last = Some(*file);
                let small = table.owner(Role::Small, small_site(*file));
                let small = servers.small.iter().filter(|s| Some(s.server) == small);
                for asked in small.chain(&servers.block) {
                    stat(asked, table, *file, facts).await?;
                }
            }
            Problem::BytesOfNoFile { file, server } | Problem::Orphan { file, server, .. } => {
                let role = table.servers.get(server).map(|e| e.role);
                if let Some(asked) = role.and_then(|role| servers.get(role, *server)) {
                    stat(asked, table, *file, facts).await?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

async fn stat(asked: &Asked, table: &RoutingTable, file: FileId, facts: &mut Facts<'_>) -> Result<(), Error> {
    let res: ObjectsRes = asked.call(PeerProc::Stat, &StatArgs { table: table.epoch, file }).await?;
    // A small-file server says nothing of a site that is not its own: what it has there is left alone.
    for info in res.objects {
        facts.object(asked.role, asked.server, info);
    }
    Ok(())
}
