//! `slice status`: the ensemble as its coordinator knows it.

use crate::cli::role::ReachArgs;
use crate::error::{Error, Result};
use crate::reach;
use crate::up::print_out;
use clap::Args;
use serde_json::{Value, json};
use slice_proto::control::pb;
use slice_proto::ids::Role;
use std::path::PathBuf;

/// Arguments of `slice status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Directory of a running `slice up`
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The coordinator.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// Shows the ensemble.
///
/// # Errors
/// A sentence.
pub async fn run(args: StatusArgs) -> Result<()> {
    let status = reach::client(args.data.as_deref(), &args.reach)?.status().await?;
    if args.json {
        let text =
            serde_json::to_string_pretty(&as_json(&status)).map_err(|e| Error::usage(e.to_string()))?;
        return print_out(&format!("{text}\n"));
    }
    print_out(&as_text(&status))
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
            })
        })
        .collect();
    let volumes: Vec<Value> = status
        .table
        .iter()
        .flat_map(|t| &t.volumes)
        .map(|v| json!({ "id": v.id, "path": v.path, "policy": policy(v) }))
        .collect();
    json!({
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
    let head =
        ["ROLE", "ID", "ADDRESS", "PID", "SITES", "OPS", "OBJECTS", "FREE", "UNSETTLED", "EPOCH", "HEARD"];
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

fn row(s: &pb::ServerStatus) -> [String; 11] {
    let stats = s.stats.clone().unwrap_or_default();
    let ops: u64 = stats.ops.iter().map(|o| o.count).sum();
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
        stats.objects.to_string(),
        bytes(stats.space_free),
        stats.unsettled.to_string(),
        s.table_epoch.to_string(),
        heard,
    ]
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
                },
                pb::ServerStatus { id: 2, role: pb::Role::Dir as i32, ..pb::ServerStatus::default() },
            ],
            ..pb::StatusReply::default()
        }
    }

    #[test]
    fn people_and_programs_see_the_same() {
        let text = as_text(&status());
        assert!(text.contains("serving") && text.contains("2 intention(s) open"), "{text}");
        let line = text.lines().find(|l| l.starts_with("blockstore")).unwrap();
        for part in ["0000000000000001", "127.0.0.1:5", " 12 ", "128", " 7 ", " 9 ", "3.0 GiB", "1.5 s ago"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(text.lines().any(|l| l.starts_with("dirserver") && l.ends_with("never")));
        let json = as_json(&status());
        assert_eq!(json["servers"][0]["ops"]["READ"], 7);
        assert_eq!(json["servers"][1]["heartbeat_age_ms"], Value::Null);
        assert_eq!(json["phase"], "serving");
    }
}
