//! `slice admin check` from the command line: finds the ensemble, has it checked, tells what was found.

use crate::admin::check::{self, Options, Report};
use crate::cli::admin::CheckArgs;
use crate::error::{Error, Result};
use crate::identity::random_id;
use crate::reach::reach;
use crate::targets::Targets;
use crate::up::print_out;
use serde_json::json;
use slice_coordinator::client::{Client, ClientError};
use slice_proto::ids::{Role, ServerId};
use slice_proto::table::RoutingTable;
use slice_rpc::clock::SystemClock;
use slice_rpc::{Directory, Me};
use std::sync::Arc;
use std::time::Duration;

/// Checks the ensemble.
///
/// # Errors
/// [`Error::Unclean`] if something is wrong; another sentence if that could not be found out.
pub async fn run(args: CheckArgs) -> Result<()> {
    let (coordinator, identity) = reach(args.data.as_deref(), &args.reach)?;
    let client = Client::new(&coordinator, identity.clone(), Arc::new(SystemClock))?;
    let table = client.status().await?.table;
    let table = table.ok_or_else(|| {
        Error::usage(
            "the ensemble is not formatted yet: its servers have not all come; `slice status` shows which",
        )
    })?;
    let table = RoutingTable::try_from(table).map_err(ClientError::from)?;
    let me = Me { identity, role: Role::Admin, server: ServerId(random_id()?) };
    let targets = Targets::new(Directory::new(Some(Arc::new(me))));
    targets.publish(table.clone()).await;
    let options = Options { settle: Duration::from_secs(u64::from(args.settle)), ..Options::default() };
    let report = check::run(&targets.directory(), &table, &options).await.map_err(Error::Check)?;
    print_out(&if args.json { as_json(&report)? } else { as_text(&report) })?;
    match report.problems.len() as u64 + report.more {
        0 => Ok(()),
        problems => Err(Error::Unclean { problems }),
    }
}

fn as_json(r: &Report) -> Result<String> {
    let value = json!({
        "clean": r.clean(),
        "files": r.files,
        "directories": r.directories,
        "entries": r.entries,
        "objects": r.objects,
        "passes": r.passes,
        "problems": r.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "more": r.more,
    });
    let text = serde_json::to_string_pretty(&value).map_err(|e| Error::usage(e.to_string()))?;
    Ok(format!("{text}\n"))
}

fn as_text(r: &Report) -> String {
    let mut text = String::new();
    for problem in &r.problems {
        text.push_str(&format!("{problem}\n"));
    }
    if r.more > 0 {
        text.push_str(&format!("… and {} more\n", r.more));
    }
    let verdict = if r.clean() { "clean" } else { "NOT clean" };
    text.push_str(&format!(
        "{verdict}: {} files ({} of them directories), {} names, {} objects; listed {} time(s)\n",
        r.files, r.directories, r.entries, r.objects, r.passes
    ));
    text
}
