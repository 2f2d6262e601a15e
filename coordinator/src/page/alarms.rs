//! What an operator should look at, from what servers told: pure. docs/operations.md ("Alarms") says what each means;
//! deploy/prometheus/slice.rules.yml has the same for Prometheus.

use super::history::Now;
use slice_proto::control::pb;
use slice_proto::ids::SITES_PER_ROLE;

/// A server that was not heard for so long is silent: five heartbeats.
pub const SILENT_MS: u64 = 5_000;
/// An intention that is so old was not taken over, or its servers are away.
pub const AGED_MS: u64 = 90_000;
/// Effects between servers settle within seconds unless one of them is away.
pub const UNSETTLED_MS: u64 = 60_000;
/// Parts of a server's space that are left when it is low, and when it is about to be full.
pub const SPACE_LOW: f64 = 0.10;
/// As above.
pub const SPACE_FULL: f64 = 0.02;

/// Everything there is to look at. `now` gives what each server of `status` does, in the same order; `up_ms` is how
/// long the coordinator has run.
#[must_use]
pub fn alarms(status: &pb::StatusReply, now: &[Option<Now>], up_ms: u64) -> Vec<pb::Alarm> {
    let mut all = Vec::new();
    let mut say = |name: &str, critical, server, what: String| {
        all.push(pb::Alarm { name: name.to_owned(), critical, server, what });
    };
    if status.phase != pb::Phase::Serving as i32 {
        let what = "not all servers of the format have come: nothing is served yet";
        say("SliceNotServing", false, 0, what.to_owned());
    }
    let epoch = status.table.as_ref().map_or(0, |t| t.epoch);
    let is = |s: &pb::ServerStatus, role: pb::Role| s.role == role as i32;
    let heard = |s: &pb::ServerStatus| s.heartbeat_age_ms.is_some_and(|ms| ms <= SILENT_MS);
    if up_ms > SILENT_MS && !status.servers.iter().any(|s| is(s, pb::Role::Proxy) && heard(s)) {
        say("SliceNoProxy", true, 0, "no µproxy is heard: nobody can mount".to_owned());
    }
    for (s, now) in status.servers.iter().zip(now) {
        match s.heartbeat_age_ms {
            Some(ms) if ms > SILENT_MS && !is(s, pb::Role::Proxy) => {
                let what = format!("not heard for {:.0} s: its clients wait", ms as f64 / 1e3);
                say("SliceServerSilent", true, s.id, what);
            }
            None if up_ms > SILENT_MS => {
                let what = "not heard since the coordinator started: its clients wait";
                say("SliceServerSilent", true, s.id, what.to_owned());
            }
            _ => {}
        }
        let peers = status.servers.iter().filter(|o| o.role == s.role && o.sites > 0).count();
        if s.sites as usize > SITES_PER_ROLE.div_ceil(peers.max(1)) {
            let what = format!("owns {} of {SITES_PER_ROLE} sites, more than its share", s.sites);
            say("SliceSitesUneven", false, s.id, what);
        }
        if heard(s) && s.table_epoch < epoch {
            let what = format!("routes by table {} where {epoch} is the newest", s.table_epoch);
            say("SliceTableBehind", false, s.id, what);
        }
        if let Some(stats) = s.stats.as_ref().filter(|st| st.space_total > 0) {
            let left = stats.space_free as f64 / stats.space_total as f64;
            if left < SPACE_FULL {
                say("SliceSpaceFull", true, s.id, format!("{:.1} % of its space is left", left * 100.0));
            } else if left < SPACE_LOW {
                say("SliceSpaceLow", false, s.id, format!("{:.0} % of its space is left", left * 100.0));
            }
        }
        if let Some(now) = now.as_ref() {
            if now.faults > 0.0 {
                let what = format!("answers {:.1} requests a second with an error of its own", now.faults);
                say("SliceServerFaults", true, s.id, what);
            }
            if now.unsettled_ms > UNSETTLED_MS && !is(s, pb::Role::Coordinator) {
                let what = format!("has had unsettled effects for {} s", now.unsettled_ms / 1000);
                say("SliceUnsettled", false, s.id, what);
            }
        }
    }
    if status.oldest_intention_ms > AGED_MS {
        let what = format!("an intention is open for {} s", status.oldest_intention_ms / 1000);
        say("SliceIntentionsAged", false, 0, what);
    }
    all.sort_by_key(|a| !a.critical);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(role: pb::Role, id: u64) -> pb::ServerStatus {
        let stats = pb::Stats { space_total: 100, space_free: 50, ..pb::Stats::default() };
        pb::ServerStatus {
            id,
            role: role as i32,
            sites: if role == pb::Role::Proxy { 0 } else { 128 },
            heartbeat_age_ms: Some(100),
            stats: Some(stats),
            ..pb::ServerStatus::default()
        }
    }

    fn status() -> pb::StatusReply {
        let servers =
            vec![server(pb::Role::Proxy, 1), server(pb::Role::Block, 2), server(pb::Role::Block, 3)];
        pb::StatusReply { phase: pb::Phase::Serving as i32, servers, ..pb::StatusReply::default() }
    }

    fn names(status: &pb::StatusReply, now: &[Option<Now>]) -> Vec<String> {
        alarms(status, now, 60_000).into_iter().map(|a| a.name).collect()
    }

    #[test]
    fn nothing_is_said_of_an_ensemble_that_is_well() {
        assert!(names(&status(), &[None, None, None]).is_empty());
    }

    #[test]
    fn each_alarm_has_its_cause() {
        let of = |change: fn(&mut pb::StatusReply)| {
            let mut s = status();
            change(&mut s);
            names(&s, &[None, None, None])
        };
        assert_eq!(of(|s| s.phase = 1), ["SliceNotServing"]);
        assert_eq!(of(|s| s.servers[0].heartbeat_age_ms = Some(6000)), ["SliceNoProxy"]);
        assert_eq!(of(|s| s.servers[1].heartbeat_age_ms = Some(6000)), ["SliceServerSilent"]);
        assert_eq!(of(|s| s.servers[1].heartbeat_age_ms = None), ["SliceServerSilent"]);
        assert_eq!(of(|s| s.servers[1].sites = 129), ["SliceSitesUneven"]);
        assert_eq!(of(|s| s.servers[1].stats.as_mut().unwrap().space_free = 5), ["SliceSpaceLow"]);
        assert_eq!(of(|s| s.servers[1].stats.as_mut().unwrap().space_free = 1), ["SliceSpaceFull"]);
        assert_eq!(of(|s| s.oldest_intention_ms = 100_000), ["SliceIntentionsAged"]);
        let table = |s: &mut pb::StatusReply| {
            s.table = Some(pb::RoutingTable { epoch: 2, ..pb::RoutingTable::default() });
            s.servers.iter_mut().for_each(|s| s.table_epoch = 2);
            s.servers[2].table_epoch = 1;
        };
        assert_eq!(of(table), ["SliceTableBehind"]);
        let now = Now { faults: 1.0, unsettled_ms: 61_000, ..Now::default() };
        assert_eq!(names(&status(), &[None, Some(now), None]), ["SliceServerFaults", "SliceUnsettled"]);
    }
}
