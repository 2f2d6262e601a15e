//! From flags to figures: targets, ensembles of the workload's own, settings for the report.

use super::flags::{
    AffinityArgs, BulkArgs, Common, OwnArgs, Place, SfsArgs, SingleArgs, UntarArgs, Workload,
};
use super::{Done, scratch};
use crate::own::{Maker, Shape};
use crate::result::{Figures, Layout, Mistakes, UntarRow};
use crate::servers::Watched;
use crate::site::Target;
use crate::{Error, Stop, bulk, sfs, single, untar};
use slice_proto::rpc_msg::{Cred, Gids};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// A quick run's MiB of files for each operation a second; the standard says 10.
const QUICK_MIB_PER_OP: f64 = 0.05;
/// Files of the tree that the paper unpacks, and of a quick run's.
const TREE: (u32, u32) = (36_000, 150);

/// Runs a workload.
pub async fn run(workload: Workload, seed: u64, program: &Path, stop: &Stop) -> Result<Done, Error> {
    match workload {
        Workload::Sfs(args) => sfs(args, seed, stop).await,
        Workload::Untar(args) => untar(args, seed, program, stop).await,
        Workload::Affinity(args) => affinity(args, seed, program, stop).await,
        Workload::Bulk(args) => bulk(args, seed, program, stop).await,
        Workload::Single(args) => single(args, seed, stop).await,
        Workload::Report { .. } => Err(Error::Protocol("a report is no workload")),
    }
}

fn settings<const N: usize>(all: [(&str, String); N]) -> BTreeMap<String, String> {
    all.map(|(name, value)| (name.to_owned(), value)).into()
}

async fn resolve(place: &Place, common: &Common) -> Result<Target, Error> {
    let mut all = tokio::net::lookup_host(place.host_port.as_str())
        .await
        .map_err(Error::io(format!("find {}", place.host_port)))?;
    let nfs = all.next().ok_or(Error::Protocol("the target has no address"))?;
    let mount = SocketAddr::new(nfs.ip(), common.mount_port.unwrap_or_else(|| nfs.port()));
    let cred = Cred { uid: common.uid, gid: common.gid, gids: Gids::default() };
    Ok(Target { nfs, mount, export: place.export.clone(), cred })
}

fn watched(common: &Common) -> Result<Watched, Error> {
    match &common.data {
        Some(dir) => Watched::ensemble(dir),
        None => Ok(Watched::processes(&common.server_pids)),
    }
}

/// The given target and its servers.
async fn given(common: &Common) -> Result<(Target, Watched), Error> {
    let place = common.target.as_ref().ok_or(Error::Protocol("this workload needs --target"))?;
    Ok((resolve(place, common).await?, watched(common)?))
}

const fn or(given: Option<f64>, quick: bool, full: f64, short: f64) -> Duration {
    let seconds = match given {
        Some(seconds) => seconds,
        None if quick => short,
        None => full,
    };
    Duration::from_millis((seconds * 1000.0) as u64)
}

fn or_list(given: Vec<u32>, quick: bool, full: &[u32], short: &[u32]) -> Vec<u32> {
    if !given.is_empty() {
        given
    } else if quick {
        short.to_vec()
    } else {
        full.to_vec()
    }
}

fn list(all: &[u32]) -> String {
    all.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

async fn sfs(args: SfsArgs, seed: u64, stop: &Stop) -> Result<Done, Error> {
    let (target, servers) = given(&args.common).await?;
    let quick = args.common.quick;
    let mib_per_op = args.mib_per_op.unwrap_or(if quick { QUICK_MIB_PER_OP } else { sfs::mix::MIB_PER_OP });
    let config = sfs::Config {
        seed,
        conns: args.conns as usize,
        points: args.points,
        peak: args.peak,
        mib_per_op,
        warmup: or(args.warmup, quick, 300.0, 1.0),
        measure: or(args.measure, quick, 300.0, 5.0),
        keep: args.keep,
    };
    let done = sfs::run(&config, &target, &servers, stop).await?;
    let mut notes = done.notes;
    if mib_per_op < sfs::mix::MIB_PER_OP {
        notes.push(format!(
            "{mib_per_op} MiB of files for each operation a second offered; the standard's set has {} MiB.",
            sfs::mix::MIB_PER_OP
        ));
    }
    let settings = settings([
        ("target", format!("{}:{}", target.nfs, target.export)),
        ("conns", args.conns.to_string()),
        ("points", args.points.to_string()),
        ("mib-per-op", mib_per_op.to_string()),
        ("warmup", format!("{} s", config.warmup.as_secs_f64())),
        ("measure", format!("{} s", config.measure.as_secs_f64())),
    ]);
    let (figures, mistakes, complete) = (done.figures, done.mistakes, done.complete);
    Ok(Done { figures, servers: servers.layout, mistakes, complete, notes, settings })
}

/// Trees unpacked on a target, or on an ensemble of each shape.
async fn unpack(
    tree: &untar::Tree,
    clients: &[u32],
    (common, maker): (&Common, &Maker),
    shapes: &[Shape],
    stop: &Stop,
) -> Result<(Vec<UntarRow>, Layout, Mistakes), Error> {
    let mut wrong = Mistakes::default();
    if common.target.is_some() {
        let (target, servers) = given(common).await?;
        let rows = untar::run(tree, clients, &target, &servers, stop, &mut wrong).await?;
        return Ok((rows, servers.layout, wrong));
    }
    let (mut rows, mut layout) = (Vec::new(), Layout::default());
    for shape in shapes {
        let own = match maker.start(shape, stop).await {
            Err(Error::Stopped) => break,
            started => started?,
        };
        let servers = own.servers()?;
        rows.extend(untar::run(tree, clients, own.target(), &servers, stop, &mut wrong).await?);
        own.stop().await?;
        layout = servers.layout;
        if stop.asked() {
            break;
        }
    }
    if shapes.len() > 1 {
        layout.policy = None;
    }
    Ok((rows, layout, wrong))
}

fn maker(own: &OwnArgs, program: &Path) -> Maker {
    Maker { program: program.to_owned(), scratch: scratch(own.scratch.as_ref()), separate: !own.one_process }
}

fn shape(policy: &str, dirservers: u32) -> Shape {
    Shape { policy: policy.to_owned(), dirservers, smallfiles: 2, blockstores: 2 }
}

fn tree(seed: u64, files: Option<u32>, quick: bool) -> (untar::Tree, Vec<String>) {
    let files = files.unwrap_or(if quick { TREE.1 } else { TREE.0 });
    let note = format!("Trees of {files} files a client; the paper's has {}.", TREE.0);
    (untar::Tree { seed, files }, if files == TREE.0 { Vec::new() } else { vec![note] })
}

async fn untar(args: UntarArgs, seed: u64, program: &Path, stop: &Stop) -> Result<Done, Error> {
    let quick = args.common.quick;
    let (tree, notes) = tree(seed, args.files, quick);
    let clients = or_list(args.clients, quick, &[1, 2, 4, 8, 16], &[1, 4, 16]);
    let shapes: Vec<_> = args.policies.iter().map(|p| shape(p, args.dirservers)).collect();
    let own = maker(&args.own, program);
    let (rows, servers, mistakes) = unpack(&tree, &clients, (&args.common, &own), &shapes, stop).await?;
    let settings = settings([("files", tree.files.to_string()), ("clients", list(&clients))]);
    Ok(Done { figures: Figures::Untar { rows }, servers, mistakes, complete: !stop.asked(), notes, settings })
}

async fn affinity(args: AffinityArgs, seed: u64, program: &Path, stop: &Stop) -> Result<Done, Error> {
    let quick = args.common.quick;
    let (tree, notes) = tree(seed, args.files, quick);
    let clients = or_list(args.clients, quick, &[1, 4, 8, 16], &[1, 4, 16]);
    let affinities = or_list(args.affinities, quick, &[0, 25, 50, 75, 90, 100], &[0, 50, 100]);
    let policy = |a: &u32| format!("mkdir:{}", f64::from(*a) / 100.0);
    let shapes: Vec<_> = affinities.iter().map(|a| shape(&policy(a), args.dirservers)).collect();
    let own = maker(&args.own, program);
    let (rows, servers, mistakes) = unpack(&tree, &clients, (&args.common, &own), &shapes, stop).await?;
    let settings = settings([
        ("files", tree.files.to_string()),
        ("clients", list(&clients)),
        ("affinities", format!("{} %", list(&affinities))),
    ]);
    Ok(Done {
        figures: Figures::Affinity { rows },
        servers,
        mistakes,
        complete: !stop.asked(),
        notes,
        settings,
    })
}

async fn bulk(args: BulkArgs, seed: u64, program: &Path, stop: &Stop) -> Result<Done, Error> {
    let quick = args.common.quick;
    let mib = args.mib.unwrap_or(if quick { 64 } else { 1024 });
    let streams = bulk::Streams { seed, count: args.streams, depth: args.depth, mib };
    let (mut rows, mut wrong, mut layout) = (Vec::new(), Mistakes::default(), Layout::default());
    if args.common.target.is_some() {
        let (target, servers) = given(&args.common).await?;
        rows.extend(bulk::run(&streams, &target, &servers, stop, &mut wrong).await?);
        layout = servers.layout;
    } else {
        let maker = maker(&args.own, program);
        for blockstores in &args.nodes {
            let shape =
                Shape { policy: "hash".into(), dirservers: 1, smallfiles: 1, blockstores: *blockstores };
            let own = match maker.start(&shape, stop).await {
                Err(Error::Stopped) => break,
                started => started?,
            };
            let servers = own.servers()?;
            rows.extend(bulk::run(&streams, own.target(), &servers, stop, &mut wrong).await?);
            own.stop().await?;
            layout = servers.layout;
            layout.count.remove("blockstore");
            if stop.asked() {
                break;
            }
        }
    }
    let settings = settings([
        ("streams", args.streams.to_string()),
        ("depth", args.depth.to_string()),
        ("mib", mib.to_string()),
    ]);
    let (figures, complete) = (Figures::Bulk { rows }, !stop.asked());
    let notes = vec![
        "What was written is read again at once, so reading is from the servers' memory as far as it fits."
            .into(),
    ];
    Ok(Done { figures, servers: layout, mistakes: wrong, complete, notes, settings })
}

async fn single(args: SingleArgs, seed: u64, stop: &Stop) -> Result<Done, Error> {
    let (target, servers) = given(&args.common).await?;
    let config = single::Config {
        seed,
        conns: args.conns as usize,
        inflight: args.inflight as usize,
        warmup: or(None, args.common.quick, 1.0, 0.2),
        measure: or(args.measure, args.common.quick, 10.0, 1.0),
    };
    let mut wrong = Mistakes::default();
    let rows = single::run(&config, &target, &servers, stop, &mut wrong).await?;
    let settings = settings([
        ("target", format!("{}:{}", target.nfs, target.export)),
        ("conns", args.conns.to_string()),
        ("inflight", args.inflight.to_string()),
        ("measure", format!("{} s", config.measure.as_secs_f64())),
    ]);
    let (figures, complete) = (Figures::Single { rows }, !stop.asked());
    Ok(Done { figures, servers: servers.layout, mistakes: wrong, complete, notes: Vec::new(), settings })
}
