//! `slice-load`: workloads over raw NFSv3, and what they cost the servers.

use clap::{Args, Parser, Subcommand};
use slice_load::command::{self, Ended, LoadArgs, Workload};
use slice_load::cpu::Servers;
use slice_load::micro::{self, Op, Outcome};
use slice_load::{Error, client, compare};
use slice_proto::rpc_msg::{Cred, Gids};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Pause between attempts to mount.
const RETRY: Duration = Duration::from_millis(50);

#[derive(Debug, Parser)]
#[command(version, about = "Workloads over raw NFSv3, and what they cost the servers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One operation over and over, from many callers at once.
    Micro(Micro),
    /// Waits until an export can be mounted.
    Wait {
        #[command(flatten)]
        target: Target,
        /// Seconds after which to give up.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
        /// The server's process: when it ends there is nothing to wait for.
        #[arg(long)]
        pid: Option<i32>,
    },
    /// The workloads of `slice load`; ensembles of their own are of the program `slice` beside this one.
    #[command(flatten)]
    Load(Workload),
    /// Prints a Markdown table of medians and ratios from files of results (`micro --json`, one a line).
    Compare {
        /// Files of results.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Label of the server to which the others are compared.
        #[arg(long)]
        base: String,
    },
}

#[derive(Debug, Args)]
struct Target {
    /// Where NFS is.
    #[arg(long, value_name = "ADDR:PORT")]
    target: SocketAddr,
    /// Port of MOUNT, on the same address [default: the port of NFS].
    #[arg(long)]
    mount_port: Option<u16>,
    /// What to mount.
    #[arg(long, default_value = "/")]
    export: String,
}

#[derive(Debug, Args)]
struct Micro {
    #[command(flatten)]
    target: Target,
    /// The operation.
    #[arg(long)]
    op: Op,
    /// Connections.
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    conns: usize,
    /// Calls in flight on each connection.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    inflight: usize,
    /// Seconds to count.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Calls at which counting ends earlier.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    calls: u64,
    /// Seconds to run before counting.
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    warmup: f64,
    /// User to act for.
    #[arg(long, default_value_t = 0)]
    uid: u32,
    /// Group to act for.
    #[arg(long, default_value_t = 0)]
    gid: u32,
    /// Server processes whose CPU time is counted.
    #[arg(long, value_delimiter = ',', value_name = "PID,PID")]
    server_pids: Vec<i32>,
    /// An ensemble's `ensemble.json`: the CPU time of every server that it lists is counted, by role.
    #[arg(long, value_name = "FILE")]
    ensemble: Option<PathBuf>,
    /// Name of the server in the result.
    #[arg(long, default_value = "server")]
    label: String,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".into()),
        Ok(n) => Ok(n),
        Err(e) => Err(format!("{e}")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let n: f64 = text.parse().map_err(|e| format!("{e}"))?;
    // A day: longer is a slip of the finger.
    if (0.0..=86_400.0).contains(&n) { Ok(n) } else { Err("between 0 and 86400".into()) }
}

// === impl Target ===

impl Target {
    fn mount(&self) -> SocketAddr {
        SocketAddr::new(self.target.ip(), self.mount_port.unwrap_or_else(|| self.target.port()))
    }
}

// === impl Micro ===

impl Micro {
    fn config(self) -> Result<micro::Config, Error> {
        let mut servers = Servers::default();
        if !self.server_pids.is_empty() {
            servers.add("server", self.server_pids);
        }
        if let Some(path) = &self.ensemble {
            servers.add_ensemble(path)?;
        }
        Ok(micro::Config {
            mount: self.target.mount(),
            target: self.target.target,
            export: self.target.export,
            cred: Cred { uid: self.uid, gid: self.gid, gids: Gids::default() },
            op: self.op,
            conns: self.conns,
            inflight: self.inflight,
            window: Duration::from_secs_f64(self.seconds),
            max_calls: self.calls,
            warmup: Duration::from_secs_f64(self.warmup),
            servers,
            label: self.label,
        })
    }
}

fn show(o: &Outcome) {
    println!(
        "{} {} {}×{}: {:.0} calls/s, p50 {:.0} µs, p99 {:.0} µs",
        o.label, o.op, o.conns, o.inflight, o.calls_per_s, o.p50_us, o.p99_us
    );
    if o.unit != "call" {
        println!("  {:.1} {}/s", o.units_per_s, o.unit);
    }
    println!("  the load itself {:.2} µs CPU a call", o.load_cpu_us_per_call);
    if let (Some(call), Some(unit)) = (o.cpu_us_per_call, o.cpu_us_per_unit) {
        println!("  server CPU {call:.2} µs a call");
        if o.unit != "call" {
            println!("  server CPU {unit:.2} µs/{}", o.unit);
        }
        for (role, us) in o.cpu_us_by_role.iter().filter(|_| o.cpu_us_by_role.len() > 1) {
            println!("    {role} {us:.2} µs a call");
        }
    }
}

async fn wait(target: &Target, timeout: u64, pid: Option<i32>) -> Result<(), Error> {
    let mut server = Servers::default();
    server.add("server", pid);
    let until = Instant::now() + Duration::from_secs(timeout);
    loop {
        match client::mount(target.mount(), &target.export).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => server.used()?,
        };
        // Nothing tells us when another process is ready: ask again.
        tokio::time::sleep(RETRY).await;
    }
}

/// Says whether all is well.
async fn run(command: Command) -> Result<bool, Error> {
    match command {
        Command::Load(workload) => {
            let own = std::env::current_exe().map_err(Error::io("find this program"))?;
            let ended = command::run(LoadArgs { workload }, &own.with_file_name("slice")).await?;
            return match ended {
                Ended::Well => Ok(true),
                Ended::Stopped => Err(Error::Protocol("ended early: the figures are not complete")),
                Ended::Wrong(n) => {
                    eprintln!("slice-load: {n} replies were wrong");
                    Ok(false)
                }
            };
        }
        Command::Micro(args) => {
            let json = args.json;
            let outcome = micro::run(args.config()?).await?;
            if json {
                println!("{}", serde_json::json!(outcome));
            } else {
                show(&outcome);
            }
        }
        Command::Wait { target, timeout, pid } => wait(&target, timeout, pid).await?,
        Command::Compare { files, base } => {
            let mut all = Vec::new();
            for file in &files {
                all.extend(compare::read(file)?);
            }
            print!("{}", compare::table(&all, &base));
        }
    }
    Ok(true)
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("slice-load: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match tokio::task::LocalSet::new().block_on(&runtime, run(command)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("slice-load: {error}");
            ExitCode::FAILURE
        }
    }
}
