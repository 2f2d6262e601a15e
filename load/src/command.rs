//! `slice load`: the flags, and a run from them to its files.

mod flags;
mod workloads;

pub use flags::{Common, LoadArgs, Workload};

use crate::machine::Machine;
use crate::result::{self, Layout, Mistakes, RunResult};
use crate::{Error, Stop, report};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is left to say when a run has ended.
#[derive(Debug)]
pub enum Ended {
    /// All is well.
    Well,
    /// It was stopped; what there is was written.
    Stopped,
    /// This many replies were wrong.
    Wrong(u64),
}

/// What a workload gives back.
struct Done {
    figures: result::Figures,
    servers: Layout,
    mistakes: Mistakes,
    complete: bool,
    notes: Vec<String>,
    settings: std::collections::BTreeMap<String, String>,
}

/// Runs what the flags say. `program` is what starts ensembles of the workload's own: the program `slice`.
/// Must run within a `LocalSet`.
///
/// # Errors
/// Those that leave no figures, and files that cannot be read or written.
pub async fn run(args: LoadArgs, program: &Path) -> Result<Ended, Error> {
    if let Workload::Report { files, html } = &args.workload {
        let all: Vec<_> = files.iter().map(|f| RunResult::read(f)).collect::<Result<_, _>>()?;
        result::replace(html, &report::html(&all))?;
        return Ok(Ended::Well);
    }
    let Some(common) = args.workload.common().cloned() else { return Ok(Ended::Well) };
    let stop = Stop::on_signals();
    let machine = Machine::here();
    let began_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let seed = common.seed.unwrap_or_else(rand::random);
    eprintln!("seed {seed}");
    let done = workloads::run(args.workload, seed, program, &stop).await?;
    let label = common.label.clone().unwrap_or_else(|| label(&done.servers));
    let result = RunResult {
        version: result::VERSION,
        label,
        began_s,
        complete: done.complete,
        quick: common.quick,
        seed,
        machine,
        servers: done.servers,
        settings: done.settings,
        notes: done.notes,
        mistakes: done.mistakes,
        figures: done.figures,
    };
    print!("{}", report::text(&result));
    if let Some(path) = &common.json {
        result.write(path)?;
    }
    if let Some(path) = &common.html {
        result::replace(path, &report::html(std::slice::from_ref(&result)))?;
    }
    Ok(match result.mistakes.total {
        0 if result.complete => Ended::Well,
        0 => Ended::Stopped,
        n => Ended::Wrong(n),
    })
}

/// What the servers are, in a few words.
fn label(servers: &Layout) -> String {
    if servers.count.is_empty() {
        return "server".into();
    }
    let policy = servers.policy.as_deref().unwrap_or("several policies");
    // What varied within the run has no number.
    let n = |role: &str| servers.count.get(role).map_or("n".to_owned(), u32::to_string);
    let (dir, small, block) = (n("dirserver"), n("smallfile"), n("blockstore"));
    let how = if servers.separate { "a process a server" } else { "one process" };
    format!("{policy}, {dir}+{small}+{block} servers, {how}")
}

/// Where ensembles of the workload's own are kept unless a flag says otherwise.
fn scratch(given: Option<&PathBuf>) -> PathBuf {
    given.cloned().unwrap_or_else(std::env::temp_dir)
}
