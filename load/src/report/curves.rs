//! Which curves results make. Pure.

use super::chart::{Axis, Chart, Line, Series};
use super::scale::Kind;
use crate::result::{Figures, LoadPoint, RunResult, UntarRow};

/// Numbers names in the order in which they come.
#[derive(Debug, Default)]
struct Numbers(Vec<String>);

impl Numbers {
    fn of(&mut self, name: &str) -> usize {
        match self.0.iter().position(|n| n == name) {
            Some(at) => at,
            None => {
                self.0.push(name.to_owned());
                self.0.len() - 1
            }
        }
    }
}

const fn axis(title: &'static str, kind: Kind) -> Axis {
    Axis { title, kind }
}

/// Directory servers of a result, as a stand-in for "servers of each role"; 0 if not known.
fn servers(result: &RunResult) -> u32 {
    result.servers.count.get("dirserver").copied().unwrap_or(0)
}

/// Colours tell policies (or peers) apart, marks tell layouts apart.
fn curve(result: &RunResult, colours: &mut Numbers, marks: &mut Numbers, points: Vec<(f64, f64)>) -> Series {
    let policy = result.servers.policy.as_deref().unwrap_or(&result.label);
    let layout = format!("{} {}", result.servers.separate, servers(result));
    Series {
        name: result.label.clone(),
        colour: colours.of(policy),
        marker: marks.of(&layout),
        line: Line::Solid,
        points,
    }
}

fn sfs_points(result: &RunResult) -> Option<&[LoadPoint]> {
    match &result.figures {
        Figures::Sfs { points, .. } if !points.is_empty() => Some(points),
        _ => None,
    }
}

/// The point at which most was delivered.
#[must_use]
pub fn peak_point(result: &RunResult) -> Option<&LoadPoint> {
    sfs_points(result)?.iter().max_by(|a, b| a.delivered.total_cmp(&b.delivered))
}

/// CPU µs of all servers for an operation; none if it is not known.
#[must_use]
pub fn whole_cpu(point: &LoadPoint) -> Option<f64> {
    (!point.cpu.is_empty()).then(|| point.cpu.iter().map(|c| c.us_per_op).sum())
}

/// The load at which the busiest server, the µproxies apart (there is one beside each client), would use a whole core: operations a second.
#[must_use]
pub fn projected(point: &LoadPoint) -> Option<f64> {
    let servers = point.cpu.iter().filter(|c| !c.server.starts_with("proxy") && c.server != "all");
    let busiest = servers.map(|c| c.us_per_op).reduce(f64::max)?;
    (busiest > 0.0).then(|| 1e6 / busiest)
}

/// Curves of one `sfs` result each, from its points.
fn each(all: &[&RunResult], value: impl Fn(&LoadPoint) -> (f64, f64)) -> Vec<Series> {
    let (mut colours, mut marks) = (Numbers::default(), Numbers::default());
    let curves = all.iter().filter_map(|r| Some((r, sfs_points(r)?)));
    curves.map(|(r, p)| curve(r, &mut colours, &mut marks, p.iter().map(&value).collect())).collect()
}

/// One curve a policy over the number of servers, from the peak of every separate ensemble.
fn over_servers(
    all: &[&RunResult],
    line: Line,
    suffix: &str,
    value: impl Fn(&LoadPoint) -> Option<f64>,
) -> Vec<Series> {
    let mut colours = Numbers::default();
    let mut series: Vec<Series> = Vec::new();
    for result in all.iter().filter(|r| r.servers.separate) {
        let Some(policy) = &result.servers.policy else { continue };
        let Some(y) = peak_point(result).and_then(&value) else { continue };
        let name = format!("{policy}{suffix}");
        let point = (f64::from(servers(result)), y);
        match series.iter_mut().find(|s| s.name == name) {
            Some(known) => known.points.push(point),
            None => {
                let colour = colours.of(policy);
                series.push(Series { name, colour, marker: colour, line, points: vec![point] });
            }
        }
    }
    for s in &mut series {
        s.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    series
}

/// Charts of the `sfs` results.
fn sfs(all: &[&RunResult]) -> Vec<Chart> {
    let mut charts = Vec::new();
    let groups: [(&str, Vec<&RunResult>); 2] = [
        ("", all.iter().copied().filter(|r| !r.servers.separate).collect()),
        (", a process a server", all.iter().copied().filter(|r| r.servers.separate).collect()),
    ];
    for (what, group) in &groups {
        let mut delivered = each(group, |p| (p.offered, p.delivered));
        if delivered.is_empty() {
            continue;
        }
        let most = delivered.iter().flat_map(|s| &s.points).map(|p| p.0).fold(0.0, f64::max);
        delivered.push(Series {
            name: "all that is offered".into(),
            colour: 0,
            marker: 0,
            line: Line::Faint,
            points: vec![(0.0, 0.0), (most, most)],
        });
        charts.push(Chart {
            title: format!("Delivered against offered load{what}"),
            note: "Requests leave at the offered rate whatever the replies do.".into(),
            x: axis("offered load, operations/s", Kind::Linear),
            y: axis("delivered load, operations/s", Kind::Linear),
            series: delivered,
        });
        charts.push(Chart {
            title: format!("Latency against delivered load{what}"),
            note: "Mean, from when a request was due to its reply. Where a curve turns back, the server is past its peak.".into(),
            x: axis("delivered load, operations/s", Kind::Linear),
            y: axis("latency, ms (logarithmic)", Kind::Log),
            series: each(group, |p| (p.delivered, p.latency.mean_us / 1e3)),
        });
    }
    let cpu = over_servers(all, Line::Solid, "", whole_cpu);
    if cpu.iter().any(|s| s.points.len() > 1) {
        charts.push(Chart {
            title: "CPU time of an operation as servers are added".into(),
            note: "User and system time of all server processes, at the highest delivered load. Flat means that adding servers costs nothing.".into(),
            x: axis("servers of each role", Kind::Steps),
            y: axis("CPU time, µs an operation", Kind::Linear),
            series: cpu,
        });
        let mut series = over_servers(all, Line::Dashed, ", projected", projected);
        series.extend(over_servers(all, Line::Solid, ", delivered on this machine", |p| Some(p.delivered)));
        charts.push(Chart {
            title: "Projection: load at which the busiest server fills a core".into(),
            note: "A projection, not a measurement: 1 s of CPU time divided by the busiest server's CPU time for an operation, as if each server had a core \
                   of its own and each client a µproxy. The solid lines are what this machine, whose cores all of them share, delivered.".into(),
            x: axis("servers of each role", Kind::Steps),
            y: axis("load, operations/s", Kind::Linear),
            series,
        });
    }
    charts
}

/// Curves of rows, one for each value of `name`.
fn rows_by(
    rows: &[(&RunResult, &UntarRow)],
    name: impl Fn(&RunResult, &UntarRow) -> String,
    x: impl Fn(&UntarRow) -> Option<f64>,
) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for (result, row) in rows {
        let (Some(x), name) = (x(row), name(result, row)) else { continue };
        let n = series.len();
        let at = series.iter().position(|s| s.name == name).unwrap_or(n);
        if at == n {
            series.push(Series { name, colour: n, marker: n, line: Line::Solid, points: Vec::new() });
        }
        if let Some(s) = series.get_mut(at) {
            s.points.push((x, row.mean_s));
        }
    }
    series
}

fn names(all: &[&RunResult]) -> Vec<Chart> {
    let mut charts = Vec::new();
    let untar: Vec<_> = all
        .iter()
        .filter_map(|r| if let Figures::Untar { rows } = &r.figures { Some((*r, rows)) } else { None })
        .flat_map(|(r, rows)| rows.iter().map(move |row| (r, row)))
        .collect();
    if !untar.is_empty() {
        let name = |r: &RunResult, row: &UntarRow| match &row.policy {
            Some(policy) => format!("{policy}, {} directory server(s)", row.dirservers),
            None => r.label.clone(),
        };
        charts.push(Chart {
            title: "Unpacking source trees: time against clients".into(),
            note: "Mean over the clients, each of which unpacks a tree of its own and waits for every reply."
                .into(),
            x: axis("clients", Kind::Steps),
            y: axis("time of a client, s", Kind::Linear),
            series: rows_by(&untar, name, |row| Some(row.clients.into())),
        });
    }
    let affinity: Vec<_> = all
        .iter()
        .filter_map(|r| if let Figures::Affinity { rows } = &r.figures { Some((*r, rows)) } else { None })
        .flat_map(|(r, rows)| rows.iter().map(move |row| (r, row)))
        .collect();
    if !affinity.is_empty() {
        let name = |_: &RunResult, row: &UntarRow| {
            format!("{} client(s), {} directory server(s)", row.clients, row.dirservers)
        };
        charts.push(Chart {
            title: "Unpacking under mkdir switching: time against affinity".into(),
            note: "Affinity is the probability with which a new directory stays with its parent's server."
                .into(),
            x: axis("directory affinity, %", Kind::Linear),
            y: axis("time of a client, s", Kind::Linear),
            series: rows_by(&affinity, name, |row| row.affinity.map(|a| a * 100.0)),
        });
    }
    charts
}

fn bulk(all: &[&RunResult]) -> Option<Chart> {
    let mut series = Vec::new();
    let results = all
        .iter()
        .filter_map(|r| if let Figures::Bulk { rows } = &r.figures { Some((r, rows)) } else { None });
    for (n, (result, rows)) in results.enumerate() {
        let points = |value: fn(&crate::result::BulkRow) -> f64| {
            rows.iter().map(|row| (f64::from(row.nodes), value(row))).collect()
        };
        let both: [(&str, Vec<(f64, f64)>); 2] =
            [("read", points(|r| r.read_mib_s)), ("write and COMMIT", points(|r| r.write_mib_s))];
        for (i, (what, points)) in both.into_iter().enumerate() {
            let name = format!("{}: {what}", result.label);
            series.push(Series { name, colour: 2 * n + i, marker: n, line: Line::Solid, points });
        }
    }
    (!series.is_empty()).then(|| Chart {
        title: "Sequential bandwidth against storage nodes".into(),
        note: String::new(),
        x: axis("block storage nodes (0: not ours)", Kind::Steps),
        y: axis("bandwidth, MiB/s", Kind::Linear),
        series,
    })
}

/// All charts that these results make.
#[must_use]
pub fn charts(all: &[RunResult]) -> Vec<Chart> {
    let all: Vec<&RunResult> = all.iter().collect();
    let mut charts = sfs(&all);
    charts.extend(names(&all));
    charts.extend(bulk(&all));
    charts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Latency, ServerCpu, tests::empty};

    fn sfs_result(policy: &str, n: u32, cpu: &[(&str, f64)]) -> RunResult {
        let cpu: Vec<_> =
            cpu.iter().map(|(s, us)| ServerCpu { server: (*s).to_owned(), us_per_op: *us }).collect();
        let point = |offered: f64, delivered: f64| LoadPoint {
            offered,
            delivered,
            latency: Latency { mean_us: 500.0, ..Latency::default() },
            late_p99_us: 0.0,
            seconds: 1.0,
            files: 1,
            accessed: 1,
            mib: 1.0,
            procs: vec![],
            cpu: cpu.clone(),
            load_us_per_op: 1.0,
        };
        let points = vec![point(100.0, 100.0), point(200.0, 190.0), point(300.0, 150.0)];
        let mut result = empty(&format!("{policy} {n}"), Figures::Sfs { points, peak: None, ort_ms: None });
        result.servers.policy = Some(policy.to_owned());
        result.servers.separate = true;
        result.servers.count.insert("dirserver".into(), n);
        result
    }

    #[test]
    fn the_projection_is_the_busiest_servers() {
        let cpu = [("proxy-0", 90.0), ("dirserver-0", 10.0), ("dirserver-1", 20.0)];
        let result = sfs_result("hash", 2, &cpu);
        let peak = peak_point(&result).unwrap();
        assert!((peak.delivered - 190.0).abs() < 1e-9);
        assert!((projected(peak).unwrap() - 50_000.0).abs() < 1e-6);
        assert!((whole_cpu(peak).unwrap() - 120.0).abs() < 1e-9);
        // All roles in one process have no busiest server.
        let one = sfs_result("hash", 1, &[("all", 10.0)]);
        assert_eq!(projected(peak_point(&one).unwrap()), None);
    }

    #[test]
    fn policies_have_colours_and_server_counts_marks() {
        let cpu = [("dirserver-0", 10.0)];
        let all =
            [sfs_result("hash", 1, &cpu), sfs_result("hash", 2, &cpu), sfs_result("mkdir:0.8", 1, &cpu)];
        let charts = charts(&all);
        let titles: Vec<_> = charts.iter().map(|c| c.title.as_str()).collect();
        assert_eq!(titles.len(), 4, "{titles:?}");
        let keys: Vec<_> = charts[0].series.iter().map(|s| (s.colour, s.marker)).collect();
        assert_eq!(keys[..3], [(0, 0), (0, 1), (1, 0)]);
        let projection = &charts[3];
        assert!(projection.title.starts_with("Projection"));
        let dashed: Vec<_> = projection.series.iter().filter(|s| s.line == Line::Dashed).collect();
        assert_eq!(dashed.len(), 2);
        assert!(dashed.iter().all(|s| s.name.ends_with("projected")));
        assert_eq!(dashed[0].points.iter().map(|p| p.0).collect::<Vec<_>>(), [1.0, 2.0]);
    }
}
