//! One operation over and over: connections × callers in flight, in a closed loop (a caller sends its next
//! call when its last one is answered).

mod ops;
mod prepare;

pub use ops::Op;

use crate::client::{self, Client};
use crate::conn::Conn;
use crate::cpu::{self, Servers};
use crate::error::Error;
use crate::meter::{Counted, Meter};
use ops::Caller;
use prepare::Ground;
use serde::{Deserialize, Serialize};
use slice_proto::rpc_msg::Cred;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Longest wait for the calls outstanding when the clock has run out, in seconds.
const DRAIN_S: u64 = 60;

/// What to run.
#[derive(Debug)]
pub struct Config {
    /// Where NFS is.
    pub target: SocketAddr,
    /// Where MOUNT is.
    pub mount: SocketAddr,
    /// What to mount.
    pub export: String,
    /// Whom to act for.
    pub cred: Cred,
    /// The operation.
    pub op: Op,
    /// Connections.
    pub conns: usize,
    /// Callers on each connection.
    pub inflight: usize,
    /// How long to count.
    pub window: Duration,
    /// Calls at which counting ends earlier.
    pub max_calls: u64,
    /// How long to run before counting.
    pub warmup: Duration,
    /// Processes whose CPU time is counted.
    pub servers: Servers,
    /// Name of the server in the result.
    pub label: String,
}

/// Figures of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the server.
    pub label: String,
    /// The operation.
    pub op: String,
    /// Connections.
    pub conns: usize,
    /// Callers on each connection.
    pub inflight: usize,
    /// How long was counted.
    pub seconds: f64,
    /// Calls answered.
    pub calls: u64,
    /// Calls a second.
    pub calls_per_s: f64,
    /// Median latency of a call, in µs.
    pub p50_us: f64,
    /// 99th percentile of the latency, in µs.
    pub p99_us: f64,
    /// What the operation moves: `call`, `MiB`, `entry`.
    pub unit: String,
    /// Units a second.
    pub units_per_s: f64,
    /// CPU time of all server processes, user and system, a call, in µs.
    pub cpu_us_per_call: Option<f64>,
    /// The same a unit.
    pub cpu_us_per_unit: Option<f64>,
    /// CPU time a call by group of processes, in µs.
    pub cpu_us_by_role: BTreeMap<String, f64>,
    /// CPU time a call of this generator itself, in µs.
    pub load_cpu_us_per_call: f64,
}

/// Runs it.
///
/// # Errors
/// The first failure of a call that the operation needs, or [`Error::NoProcess`].
pub async fn run(config: Config) -> Result<Outcome, Error> {
    let root = client::mount(config.mount, &config.export).await?;
    let mut clients = Vec::new();
    for _ in 0..config.conns {
        clients.push(Client::new(Conn::connect(config.target).await?, config.cred));
    }
    let first = clients.first().ok_or(Error::Protocol("at least one connection is needed"))?;
    let ground = Ground::prepare(first, root, &config).await?;
    let meter = Meter::new()?;
    let mut callers = JoinSet::new();
    for (conn, client) in clients.iter().enumerate() {
        let per_conn = if config.op.is_stream() { 1 } else { config.inflight };
        for lane in 0..per_conn {
            let caller = Caller {
                client: client.clone(),
                meter: meter.clone(),
                place: ground.place(conn, lane)?,
                id: conn * config.inflight + lane,
                width: config.inflight,
            };
            callers.spawn_local(caller.run(config.op));
        }
    }
    let measured = window(&config, &meter, &mut callers).await;
    let counted = meter.stop();
    let drained = tokio::time::timeout(Duration::from_secs(DRAIN_S), drain(&mut callers)).await;
    let measured = measured?;
    drained.map_err(|_| Error::Timeout(DRAIN_S))??;
    ground.clear(first).await?;
    Ok(outcome(&config, &counted, &measured))
}

/// How long was counted, and the CPU time used meanwhile.
struct Measured {
    seconds: f64,
    servers: BTreeMap<String, Duration>,
    own: Duration,
}

/// Warms up, then counts until time or calls run out.
async fn window(
    config: &Config,
    meter: &Meter,
    callers: &mut JoinSet<Result<(), Error>>,
) -> Result<Measured, Error> {
    tokio::select! {
        () = tokio::time::sleep(config.warmup) => {}
        failed = next_failure(callers) => return Err(failed),
    }
    let (before, own_before) = (config.servers.used()?, cpu::own()?);
    let start = Instant::now();
    meter.switch_on(config.max_calls);
    tokio::select! {
        () = tokio::time::sleep(config.window) => {}
        () = meter.limit_reached() => {}
        failed = next_failure(callers) => return Err(failed),
    }
    let seconds = start.elapsed().as_secs_f64();
    let own = cpu::own()?.saturating_sub(own_before);
    Ok(Measured { seconds, servers: config.servers.used()?.since(&before), own })
}

/// Resolves when a caller ends, which before the end of the run it does only by failing.
async fn next_failure(callers: &mut JoinSet<Result<(), Error>>) -> Error {
    match callers.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Ok(Ok(())) | Err(_)) | None => Error::Protocol("a caller ended before the run did"),
    }
}

async fn drain(callers: &mut JoinSet<Result<(), Error>>) -> Result<(), Error> {
    while let Some(ended) = callers.join_next().await {
        ended.map_err(|_| Error::Protocol("a caller panicked"))??;
    }
    Ok(())
}

fn outcome(config: &Config, counted: &Counted, measured: &Measured) -> Outcome {
    let (seconds, cpu) = (measured.seconds, &measured.servers);
    let calls = counted.calls as f64;
    let (unit, units) = match config.op.unit() {
        Some(unit) => (unit, counted.units as f64),
        None => ("call", calls),
    };
    let us = |d: Duration| d.as_secs_f64() * 1e6;
    let total: Duration = cpu.values().sum();
    let counts_cpu = !config.servers.is_empty();
    Outcome {
        label: config.label.clone(),
        op: config.op.to_string(),
        conns: config.conns,
        inflight: config.inflight,
        seconds,
        calls: counted.calls,
        calls_per_s: calls / seconds,
        p50_us: counted.p50_ns as f64 / 1e3,
        p99_us: counted.p99_ns as f64 / 1e3,
        unit: unit.to_owned(),
        units_per_s: units / seconds,
        cpu_us_per_call: (counts_cpu && calls > 0.0).then(|| us(total) / calls),
        cpu_us_per_unit: (counts_cpu && units > 0.0).then(|| us(total) / units),
        cpu_us_by_role: cpu.iter().map(|(role, used)| (role.clone(), us(*used) / calls.max(1.0))).collect(),
        load_cpu_us_per_call: us(measured.own) / calls.max(1.0),
    }
}
