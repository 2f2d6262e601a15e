//! `slice admin check` from the command line: finds the ensemble, has it checked and mended, tells what was found.

use crate::admin::check::repair::{Mended, Plan, Proposal, mend, propose};
use crate::admin::check::{self, Options, Report};
use crate::cli::admin::CheckArgs;
use crate::error::{Error, Result};
use crate::identity::random_id;
use crate::reach::reach;
use crate::targets::Targets;
use crate::up::print_out;
use serde_json::{Value, json};
use slice_coordinator::client::{Client, ClientError};
use slice_proto::ids::{Role, ServerId};
use slice_proto::table::RoutingTable;
use slice_rpc::clock::SystemClock;
use slice_rpc::{Directory, Me};
use std::sync::Arc;
use std::time::Duration;

/// Checks the ensemble, and repairs it if that is wanted.
///
/// # Errors
/// [`Error::Unclean`] if something is wrong (at the end); another sentence if that could not be found out.
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
    let me = Me { identity: identity.clone(), role: Role::Admin, server: ServerId(random_id()?) };
    let targets = Targets::new(Directory::new(Some(Arc::new(me))));
    targets.publish(table.clone()).await;
    let directory = targets.directory();
    let options = Options { settle: Duration::from_secs(u64::from(args.settle)), ..Options::default() };
    let (report, mended, proposals) = if args.repair {
        let client = (u128::from(random_id()?) << 64 | u128::from(random_id()?)).to_be_bytes();
        let mut said = Vec::new();
        // As it happens: a repair is told of even if what comes after fails.
        let mut say = |line: String| {
            if args.json {
                said.push(line)
            } else {
                said.extend(print_out(&format!("{line}\n")).err().map(|e| e.to_string()))
            }
        };
        let mended = mend(&directory, &table, &identity, client, &options, &mut say);
        let mut mended = mended.await.map_err(Error::Check)?;
        let proposals = std::mem::take(&mut mended.left);
        (mended.report.clone(), Some((mended, said)), proposals)
    } else {
        let report = check::run(&directory, &table, &options).await.map_err(Error::Check)?;
        // What is wrong is told even if it cannot be told what to do about it.
        let proposals = if report.clean() {
            Ok(Vec::new())
        } else {
            propose(&directory, &table, &options, &report).await.map_err(Error::Check)
        };
        let proposals = proposals.unwrap_or_else(|error| {
            eprintln!("slice: what could be repaired is not known: {error}");
            Vec::new()
        });
        (report, None, proposals)
    };
    print_out(&if args.json {
        as_json(&report, mended.as_ref(), &proposals)?
    } else {
        as_text(&report, mended.as_ref().map(|(m, _)| m), &proposals)
    })?;
    match report.problems.len() as u64 + report.more {
        0 => Ok(()),
        problems => Err(Error::Unclean { problems }),
    }
}

fn as_json(r: &Report, mended: Option<&(Mended, Vec<String>)>, proposals: &[Proposal]) -> Result<String> {
    let proposal = |p: &Proposal| {
        let repairable = !matches!(p.plan, Plan::Leave(_));
        json!({ "problem": p.problem.to_string(), "repairable": repairable, "what": p.plan.to_string() })
    };
    let mended = mended.map_or(Value::Null, |(m, said)| {
        json!({
            "found": m.found,
            "repaired": m.repaired,
            "void": m.void,
            "rounds": m.rounds,
            "repairs": said,
        })
    });
    let value = json!({
        "clean": r.clean(),
        "files": r.files,
        "directories": r.directories,
        "entries": r.entries,
        "objects": r.objects,
        "passes": r.passes,
        "problems": r.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "more": r.more,
        "proposals": proposals.iter().map(proposal).collect::<Vec<_>>(),
        "repair": mended,
    });
    let text = serde_json::to_string_pretty(&value).map_err(|e| Error::usage(e.to_string()))?;
    Ok(format!("{text}\n"))
}

fn as_text(r: &Report, mended: Option<&Mended>, proposals: &[Proposal]) -> String {
    let mut text = String::new();
    for (i, problem) in r.problems.iter().enumerate() {
        text.push_str(&format!("{problem}\n"));
        if let Some(Proposal { plan, .. }) = proposals.get(i) {
            text.push_str(&format!("    {plan}\n"));
        }
    }
    if r.more > 0 {
        text.push_str(&format!("… and {} more\n", r.more));
    }
    if let Some(m) = mended {
        let left = r.problems.len() as u64 + r.more;
        text.push_str(&format!(
            "found {} problem(s), did {} repair(s) in {} round(s), {} void; {left} problem(s) left\n",
            m.found, m.repaired, m.rounds, m.void
        ));
    }
    let verdict = if r.clean() { "clean" } else { "NOT clean" };
    text.push_str(&format!(
        "{verdict}: {} files ({} of them directories), {} names, {} objects; listed {} time(s)\n",
        r.files, r.directories, r.entries, r.objects, r.passes
    ));
    text
}
