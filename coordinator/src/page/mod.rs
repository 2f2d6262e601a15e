//! The status page: the ensemble as a picture, for a browser. The page and all that it needs are in this program; it
//! asks for [`Coordinator::page_data`] every second. Read only.

pub mod alarms;
pub mod history;

use crate::coordinator::Coordinator;
use history::Now;
use serde_json::{Value, json};
use slice_proto::control::pb;
use slice_proto::ids::{Role, ServerId};
use slice_rpc::clock::Clock;

/// The page: HTML, style, script and pictures in one.
pub const HTML: &str = include_str!("page.html");

impl Coordinator {
    /// Everything that the page shows, as JSON.
    #[must_use]
    pub fn page_data(&self) -> String {
        let (status, now) = self.watched();
        let space = self.heard.lock().space();
        let servers: Vec<Value> =
            status.servers.iter().zip(&now).map(|(s, now)| server(s, now.as_ref())).collect();
        let volumes: Vec<Value> = status
            .table
            .iter()
            .flat_map(|t| &t.volumes)
            .map(|v| json!({ "path": v.path, "policy": policy(v) }))
            .collect();
        let alarms: Vec<Value> = status
            .alarms
            .iter()
            .map(|a| {
                let server = if a.server == 0 { Value::Null } else { json!(id(a.server)) };
                json!({ "name": a.name, "critical": a.critical, "server": server, "what": a.what })
            })
            .collect();
        json!({
            "ensemble": id(status.ensemble),
            "phase": match status.phase { 1 => "waiting for servers", 2 => "stamping stores", 3 => "serving", _ => "unknown" },
            "table_epoch": status.table.as_ref().map_or(0, |t| t.epoch),
            "volumes": volumes,
            "intentions": { "open": status.intentions_open, "oldest_ms": status.oldest_intention_ms },
            "space": { "total": space.total, "free": space.free, "available": space.available, "files": space.files },
            "servers": servers,
            "alarms": alarms,
        })
        .to_string()
    }

    /// What each server of the status does, in the same order.
    pub(crate) fn now(&self, servers: &[pb::ServerStatus]) -> Vec<Option<Now>> {
        let now_ns = self.steady.now_ns();
        let activities = self.activities.lock();
        servers.iter().map(|s| activities.now(ServerId(s.id), now_ns)).collect()
    }
}

fn id(id: u64) -> String {
    format!("{id:016x}")
}

fn role(number: i32) -> &'static str {
    let role = pb::Role::try_from(number).ok().and_then(|r| Role::try_from(r).ok());
    role.map_or("unknown", Role::name)
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

fn server(s: &pb::ServerStatus, now: Option<&Now>) -> Value {
    let stats = s.stats.clone().unwrap_or_default();
    let mut shown = json!({
        "id": id(s.id),
        "role": role(s.role),
        "address": s.address,
        "pid": s.pid,
        "sites": s.sites,
        "heard_ms": s.heartbeat_age_ms,
        "table_epoch": s.table_epoch,
        "objects": stats.objects,
        "space_total": stats.space_total,
        "space_free": stats.space_free,
        "unsettled": stats.unsettled,
        "ops": stats.ops.iter().map(|o| (o.name.clone(), json!(o.count))).collect::<serde_json::Map<_, _>>(),
    });
    if let (Some(now), Some(shown)) = (now, shown.as_object_mut()) {
        let asked: Vec<Value> =
            now.asked.iter().map(|(server, ops)| json!({ "id": server.to_string(), "ops_s": ops })).collect();
        let clients: Vec<Value> = now
            .clients
            .iter()
            .map(|c| json!({ "address": c.address, "connections": c.connections }))
            .collect();
        let more = json!({
            "ops_s": now.rates.ops,
            "errors_s": now.rates.errors,
            "p50_s": now.rates.p50,
            "p99_s": now.rates.p99,
            "cpu": now.rates.cpu,
            "resident": now.resident_bytes,
            "connections": now.connections,
            "history": now.history,
            "asked": asked,
            "clients": clients,
        });
        if let Value::Object(more) = more {
            shown.extend(more);
        }
    }
    shown
}
