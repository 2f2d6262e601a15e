//! `slice status`: the ensemble as its coordinator knows it.

use crate::cli::role::ReachArgs;
use crate::error::{Error, Result};
use crate::reach;
use crate::signals;
use crate::up::print_out;
use clap::Args;
use serde_json::{Value, json};
use slice_proto::control::pb;
use slice_proto::ids::Role;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `slice status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Directory of a running `slice up`
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The coordinator.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Prints JSON; with --watch an object a line
    #[arg(long)]
    pub json: bool,
    /// Shows it again every so many seconds, until Ctrl-C [default: 1 if no number is given]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub watch: Option<u16>,
}

/// What makes a terminal's screen empty, with the cursor at its upper left (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the ensemble.
///
/// # Errors
/// A sentence.
pub async fn run(args: StatusArgs) -> Result<()> {
    let client = reach::client(args.data.as_deref(), &args.reach)?;
    let Some(seconds) = args.watch else {
        let status = client.status().await?;
        return print_out(&if args.json { pretty(&status)? } else { as_text(&status) });
    };
    let mut stop = signals::stop()?;
    let mut turns = tokio::time::interval(Duration::from_secs(u64::from(seconds)));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            () = stop.wait() => return Ok(()),
        }
        // A coordinator that is away comes back: who watches wants to see it.
        let text = match client.status().await {
            Ok(status) if args.json => format!("{}\n", as_json(&status)),
            Ok(status) => as_text(&status),
            Err(error) if error.is_passing() && !args.json => format!("{error}\n"),
            Err(error) if error.is_passing() => format!("{}\n", json!({ "error": error.to_string() })),
            Err(error) => return Err(error.into()),
        };
        print_out(&format!("{clear}{text}"))?;
    }
}

fn pretty(status: &pb::StatusReply) -> Result<String> {
    let text = serde_json::to_string_pretty(&as_json(status)).map_err(|e| Error::usage(e.to_string()))?;
    Ok(format!("{text}\n"))
}

const fn phase(status: &pb::StatusReply) -> &'static str {
    match status.phase {
        1 => "waiting for servers",
        2 => "stamping stores",
        3 => "serving",
        _ => "unknown",
    }
}

fn role(number: i32) -> &'static str {
    let role = pb::Role::try_from(number).ok().and_then(|r| Role::try_from(r).ok());
    role.map_or("unknown", Role::name)
}

fn epoch(status: &pb::StatusReply) -> u64 {
    status.table.as_ref().map_or(0, |t| t.epoch)
}

fn policy(volume: &pb::Volume) -> String {
    use pb::name_policy::Policy;
    match volume.policy.as_ref().and_then(|p| p.policy.as_ref()) {
        Some(Policy::Partition(_)) => "partition".into(),
        Some(Policy::Hash(_)) => "hash".into(),
        Some(Policy::MkdirAffinityPpm(ppm)) => format!("mkdir:{}", f64::from(*ppm) / 1e6),
        None => "unknown".into(),
    }
}

/// Everything, for programs.
fn as_json(status: &pb::StatusReply) -> Value {
    let servers: Vec<Value> = status
        .servers
        .iter()
        .map(|s| {
            let stats = s.stats.clone().unwrap_or_default();
            let ops: serde_json::Map<_, _> =
                stats.ops.iter().map(|o| (o.name.clone(), json!(o.count))).collect();
            json!({
                "role": role(s.role),
                "id": format!("{:016x}", s.id),
                "address": s.address,
                "pid": s.pid,
                "sites": s.sites,
                "ops": ops,
                "objects": stats.objects,
                "space_total": stats.space_total,
                "space_free": stats.space_free,
                "unsettled": stats.unsettled,
                "table_epoch": s.table_epoch,
                "heartbeat_age_ms": s.heartbeat_age_ms,
                "rates": s.rates.map(|r| json!({
                    "ops": r.ops, "errors": r.errors, "p50_seconds": r.p50, "p99_seconds": r.p99, "cpu_cores": r.cpu,
                })),
            })
        })
        .collect();
    let volumes: Vec<Value> = status
        .table
        .iter()
        .flat_map(|t| &t.volumes)
        .map(|v| json!({ "id": v.id, "path": v.path, "policy": policy(v) }))
        .collect();
    let alarms: Vec<Value> = status
        .alarms
        .iter()
        .map(|a| {
            let server = if a.server == 0 { Value::Null } else { json!(format!("{:016x}", a.server)) };
            json!({ "name": a.name, "critical": a.critical, "server": server, "what": a.what })
        })
        .collect();
    json!({
        "alarms": alarms,
        "ensemble": format!("{:016x}", status.ensemble),
        "phase": phase(status),
        "table_epoch": epoch(status),
        "expected": { "dirserver": status.expected_dir, "smallfile": status.expected_small, "blockstore": status.expected_block },
        "intentions_open": status.intentions_open,
        "oldest_intention_ms": status.oldest_intention_ms,
        "volumes": volumes,
        "servers": servers,
    })
}

/// Everything that fits on a screen, for people.
fn as_text(status: &pb::StatusReply) -> String {
    let mut text = format!(
        "ensemble {:016x}: {}, table epoch {}, {} intention(s) open\n",
        status.ensemble,
        phase(status),
        epoch(status),
        status.intentions_open
    );
    for v in status.table.iter().flat_map(|t| &t.volumes) {
        text.push_str(&format!("volume {}: {}\n", v.path, policy(v)));
    }
    for a in &status.alarms {
        let of = status.servers.iter().find(|s| s.id == a.server && a.server != 0);
        let of = of.map_or(String::new(), |s| format!("{} {}: ", role(s.role), s.address));
        let weight = if a.critical { "CRITICAL" } else { "warning" };
        text.push_str(&format!("{weight} {}: {of}{}\n", a.name, a.what));
    }
    let head = [
        "ROLE",
        "ID",
        "ADDRESS",
        "PID",
        "SITES",
        "OPS",
        "OPS/S",
        "P50",
        "P99",
        "CPU",
        "OBJECTS",
        "FREE",
        "UNSETTLED",
        "EPOCH",
        "HEARD",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(status.servers.iter().map(row));
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(s: &pb::ServerStatus) -> [String; 15] {
    let stats = s.stats.clone().unwrap_or_default();
    let ops: u64 = stats.ops.iter().map(|o| o.count).sum();
    let rate = |of: fn(&pb::Rates) -> String| s.rates.as_ref().map_or_else(|| "-".to_owned(), of);
    let heard = match s.heartbeat_age_ms {
        Some(ms) => format!("{:.1} s ago", ms as f64 / 1e3),
        None => "never".into(),
    };
    [
        role(s.role).to_owned(),
        format!("{:016x}", s.id),
        s.address.clone(),
        if s.pid == 0 { "-".into() } else { s.pid.to_string() },
        s.sites.to_string(),
        ops.to_string(),
        rate(|r| format!("{:.0}", r.ops)),
        rate(|r| seconds(r.p50)),
        rate(|r| seconds(r.p99)),
        rate(|r| format!("{:.0} %", r.cpu * 100.0)),
        stats.objects.to_string(),
        bytes(stats.space_free),
        stats.unsettled.to_string(),
        s.table_epoch.to_string(),
        heard,
    ]
}

/// A duration for people.
fn seconds(s: f64) -> String {
    match s {
        s if s <= 0.0 => "-".into(),
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// A number of bytes for people.
fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> pb::StatusReply {
        let stats = pb::Stats {
            ops: vec![pb::OpCount { name: "READ".into(), count: 7 }],
            space_free: 3 << 30,
            objects: 9,
            ..pb::Stats::default()
        };
        pb::StatusReply {
            ensemble: 0xabc,
            phase: 3,
            intentions_open: 2,
            servers: vec![
                pb::ServerStatus {
                    id: 1,
                    role: pb::Role::Block as i32,
                    address: "127.0.0.1:5".into(),
                    pid: 12,
                    sites: 128,
                    stats: Some(stats),
                    heartbeat_age_ms: Some(1500),
                    table_epoch: 1,
                    rates: Some(pb::Rates { ops: 12.0, errors: 0.0, p50: 40e-6, p99: 2e-3, cpu: 0.5 }),
                },
                pb::ServerStatus { id: 2, role: pb::Role::Dir as i32, ..pb::ServerStatus::default() },
            ],
            alarms: vec![pb::Alarm {
                name: "SliceSpaceFull".into(),
                critical: true,
                server: 1,
                what: "full".into(),
            }],
            ..pb::StatusReply::default()
        }
    }

    #[test]
    fn people_and_programs_see_the_same() {
        let text = as_text(&status());
        assert!(text.contains("serving") && text.contains("2 intention(s) open"), "{text}");
        let line = text.lines().find(|l| l.starts_with("blockstore")).unwrap();
        assert!(text.contains("CRITICAL SliceSpaceFull: blockstore 127.0.0.1:5: full"), "{text}");
        for part in [
            "0000000000000001",
            "127.0.0.1:5",
            " 12 ",
            "128",
            " 7 ",
            " 9 ",
            "3.0 GiB",
            "1.5 s ago",
            "40 µs",
            "2.0 ms",
            "50 %",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(text.lines().any(|l| l.starts_with("dirserver") && l.ends_with("never")));
        let json = as_json(&status());
        assert_eq!(json["servers"][0]["ops"]["READ"], 7);
        assert_eq!(json["servers"][1]["heartbeat_age_ms"], Value::Null);
        assert_eq!(json["phase"], "serving");
        assert_eq!(json["alarms"][0]["server"], "0000000000000001");
        assert_eq!(json["servers"][0]["rates"]["ops"], 12.0);
    }
}
