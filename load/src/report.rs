//! One page of several results: tables and charts, light and dark, without any other file or the network.

pub mod chart;
pub mod curves;
pub mod scale;

use crate::result::{Figures, LoadPoint, RunResult, ServerCpu};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use scale::short;
use std::fmt::Write;

/// Colours are told apart by most who see few colours too (after Okabe and Ito).
const STYLE: &str = include_str!("report/style.css");

/// The page.
#[must_use]
pub fn html(all: &[RunResult]) -> String {
    let charts = curves::charts(all);
    let wrong: u64 = all.iter().map(|r| r.mistakes.total).sum();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "slice load" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "slice load" }
                @if wrong > 0 { p.alarm { (wrong) " replies were wrong. These figures are of a server that does not do its work." } }
                (summary(all))
                div.charts { @for chart in &charts { (chart.figure()) } }
                (single(all))
                h2 { "The runs" }
                @for result in all { (details(result)) }
            }
        }
    };
    page.into_string()
}

/// What the page says first: a line a result.
fn summary(all: &[RunResult]) -> Markup {
    html! {
        table {
            thead { tr {
                th { "what" } th { "workload" } th.n { "most delivered, op/s" } th.n { "ORT, ms" }
                th.n { "CPU, µs/op" } th.n { "wrong replies" } th { "" }
            } }
            tbody { @for result in all {
                @let (peak, ort) = match &result.figures {
                    Figures::Sfs { peak, ort_ms, .. } => (*peak, *ort_ms),
                    _ => (None, None),
                };
                tr {
                    td { (result.label) }
                    td { (result.figures.workload()) }
                    td.n { (or_dash(peak)) }
                    td.n { (or_dash(ort)) }
                    td.n { (or_dash(curves::peak_point(result).and_then(curves::whole_cpu))) }
                    td.n { (result.mistakes.total) }
                    td {
                        @if !result.complete { "not complete " }
                        @if result.quick { "quick" }
                    }
                }
            } }
        }
    }
}

fn or_dash(v: Option<f64>) -> String {
    v.map_or("–".into(), short)
}

/// Procedures alone, results side by side.
fn single(all: &[RunResult]) -> Markup {
    let results: Vec<_> = all
        .iter()
        .filter_map(|r| if let Figures::Single { rows } = &r.figures { Some((r, rows)) } else { None })
        .collect();
    let Some((_, first)) = results.first() else { return html! {} };
    html! {
        h2 { "Each procedure alone" }
        div.wide { table {
            thead {
                tr { th { "" } @for (result, _) in &results { th.n colspan="4" { (result.label) } } }
                tr { th { "procedure" } @for _ in &results { th.n { "calls/s" } th.n { "p50, µs" } th.n { "p99, µs" } th.n { "p99.9, µs" } } }
            }
            tbody { @for row in *first { tr {
                td { (row.line.proc) }
                @for (_, rows) in &results {
                    @match rows.iter().find(|r| r.line.proc == row.line.proc) {
                        Some(row) => {
                            td.n { (short(row.line.per_s)) } td.n { (short(row.line.latency.p50_us)) }
                            td.n { (short(row.line.latency.p99_us)) } td.n { (short(row.line.latency.p999_us)) }
                        }
                        None => { td {} td {} td {} td {} }
                    }
                }
            } } }
        } }
    }
}

/// A table of names and values.
fn pairs(title: &str, rows: &[(String, String)]) -> Markup {
    html! {
        div {
            h3 { (title) }
            table.pairs { @for (name, value) in rows { tr { th { (name) } td { (value) } } } }
        }
    }
}

/// Everything of one result that the charts do not show.
fn details(result: &RunResult) -> Markup {
    let machine = &result.machine;
    let text = |s: &str| s.to_owned();
    let mut servers: Vec<(String, String)> = Vec::new();
    if let Some(policy) = &result.servers.policy {
        servers.push((text("policy"), policy.clone()));
        servers.push((text("a process a server"), text(if result.servers.separate { "yes" } else { "no" })));
    }
    servers.extend(result.servers.count.iter().map(|(role, n)| (role.clone(), n.to_string())));
    let machine = [
        (text("processor"), machine.cpu.clone()),
        (text("cores"), machine.cores.to_string()),
        (text("memory"), format!("{} MiB", short(machine.memory_mib as f64))),
        (text("kernel"), machine.kernel.clone()),
        (text("load average before"), short(machine.load_average)),
    ];
    let settings: Vec<_> = result
        .settings
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .chain([(text("seed"), result.seed.to_string())])
        .collect();
    html! {
        details {
            summary { (result.label) ": " (result.figures.workload()) }
            @for note in &result.notes { p.note { (note) } }
            @if !result.mistakes.kinds.is_empty() {
                h3 { "Wrong replies" }
                table {
                    thead { tr { th { "procedure" } th { "what" } th.n { "times" } } }
                    tbody { @for kind in &result.mistakes.kinds { tr { td { (kind.proc) } td { (kind.what) } td.n { (kind.times) } } } }
                }
            }
            div.side {
                (pairs("Machine", &machine))
                @if !servers.is_empty() { (pairs("Servers", &servers)) }
                (pairs("Settings", &settings))
            }
            (figures(result))
        }
    }
}

fn cpu_text(cpu: &[ServerCpu]) -> String {
    cpu.iter().map(|c| format!("{} {}", c.server, short(c.us_per_op))).collect::<Vec<_>>().join(", ")
}

fn load_points(points: &[LoadPoint]) -> Markup {
    html! {
        div.wide { table {
            thead { tr {
                th.n { "offered, op/s" } th.n { "delivered, op/s" } th.n { "mean, ms" } th.n { "p50, ms" } th.n { "p99, ms" } th.n { "p99.9, ms" }
                th.n { "files" } th.n { "accessed" } th.n { "MiB" } th.n { "sent late p99, µs" } th.n { "load CPU, µs/op" } th { "server CPU, µs/op" }
            } }
            tbody { @for p in points { tr {
                td.n { (short(p.offered)) } td.n { (short(p.delivered)) }
                td.n { (short(p.latency.mean_us / 1e3)) } td.n { (short(p.latency.p50_us / 1e3)) }
                td.n { (short(p.latency.p99_us / 1e3)) } td.n { (short(p.latency.p999_us / 1e3)) }
                td.n { (short(p.files as f64)) } td.n { (short(p.accessed as f64)) } td.n { (short(p.mib)) }
                td.n { (short(p.late_p99_us)) } td.n { (short(p.load_us_per_op)) } td { (cpu_text(&p.cpu)) }
            } } }
        } }
    }
}

fn procedures(point: &LoadPoint) -> Markup {
    html! {
        h3 { "By procedure, at the highest delivered load" }
        table {
            thead { tr { th { "procedure" } th.n { "calls" } th.n { "share, %" } th.n { "p50, ms" } th.n { "p99, ms" } th.n { "p99.9, ms" } } }
            tbody { @for line in &point.procs { tr {
                td { (line.proc) } td.n { (short(line.calls as f64)) }
                td.n { (short(100.0 * line.per_s / point.delivered.max(f64::MIN_POSITIVE))) }
                td.n { (short(line.latency.p50_us / 1e3)) } td.n { (short(line.latency.p99_us / 1e3)) } td.n { (short(line.latency.p999_us / 1e3)) }
            } } }
        }
    }
}

fn figures(result: &RunResult) -> Markup {
    html! { @match &result.figures {
        Figures::Sfs { points, .. } => {
            (load_points(points))
            @if let Some(point) = curves::peak_point(result) { (procedures(point)) }
        }
        Figures::Untar { rows } | Figures::Affinity { rows } => div.wide { table {
            thead { tr {
                th { "policy" } th.n { "clients" } th.n { "mean, s" } th.n { "all, s" } th.n { "calls/s" } th.n { "p50, ms" } th.n { "p99, ms" } th { "server CPU, µs/call" }
            } }
            tbody { @for row in rows { tr {
                td { (row.policy.as_deref().unwrap_or("–")) } td.n { (row.clients) } td.n { (short(row.mean_s)) } td.n { (short(row.all_s)) }
                td.n { (short(row.per_s)) } td.n { (short(row.latency.p50_us / 1e3)) } td.n { (short(row.latency.p99_us / 1e3)) } td { (cpu_text(&row.cpu)) }
            } } }
        } },
        Figures::Bulk { rows } => div.wide { table {
            thead { tr { th.n { "storage nodes" } th.n { "write, MiB/s" } th.n { "read, MiB/s" } th { "CPU writing, µs/MiB" } th { "CPU reading, µs/MiB" } } }
            tbody { @for row in rows { tr {
                td.n { (row.nodes) } td.n { (short(row.write_mib_s)) } td.n { (short(row.read_mib_s)) } td { (cpu_text(&row.write_cpu)) } td { (cpu_text(&row.read_cpu)) }
            } } }
        } },
        Figures::Single { .. } => {}
    } }
}

/// The figures for a terminal.
#[must_use]
pub fn text(result: &RunResult) -> String {
    let mut out = format!("{}: {}\n", result.label, result.figures.workload());
    // Writing to a string does not fail.
    match &result.figures {
        Figures::Sfs { points, peak, ort_ms } => {
            let _ = writeln!(
                out,
                "{:>12} {:>12} {:>10} {:>10} {:>10}",
                "offered/s", "delivered/s", "mean ms", "p99 ms", "CPU µs/op"
            );
            for p in points {
                let cpu = or_dash(curves::whole_cpu(p));
                let (mean, p99) = (p.latency.mean_us / 1e3, p.latency.p99_us / 1e3);
                let _ = writeln!(
                    out,
                    "{:>12.0} {:>12.0} {mean:>10.3} {p99:>10.3} {cpu:>10}",
                    p.offered, p.delivered
                );
            }
            let _ = writeln!(
                out,
                "most delivered {} op/s, overall response time {} ms",
                or_dash(*peak),
                or_dash(*ort_ms)
            );
        }
        Figures::Untar { rows } | Figures::Affinity { rows } => {
            for row in rows {
                let policy = row.policy.as_deref().unwrap_or("the server");
                let _ = writeln!(
                    out,
                    "{policy:>12} {:>3} client(s) {:>9.3} s, {:>8.0} calls/s",
                    row.clients, row.mean_s, row.per_s
                );
            }
        }
        Figures::Bulk { rows } => {
            for row in rows {
                let _ = writeln!(
                    out,
                    "{} node(s): write {:.0} MiB/s, read {:.0} MiB/s",
                    row.nodes, row.write_mib_s, row.read_mib_s
                );
            }
        }
        Figures::Single { rows } => {
            for SingleLine { proc, per_s, p50, p99, p999 } in rows.iter().map(SingleLine::of) {
                let _ = writeln!(
                    out,
                    "{proc:>12} {per_s:>9.0} calls/s, p50 {p50:.0} µs, p99 {p99:.0} µs, p99.9 {p999:.0} µs"
                );
            }
        }
    }
    for note in &result.notes {
        let _ = writeln!(out, "{note}");
    }
    for kind in &result.mistakes.kinds {
        let _ = writeln!(out, "wrong: {} {} ({} times)", kind.proc, kind.what, kind.times);
    }
    out
}

/// What a line of `single` shows.
struct SingleLine<'a> {
    proc: &'a str,
    per_s: f64,
    p50: f64,
    p99: f64,
    p999: f64,
}

impl<'a> SingleLine<'a> {
    fn of(row: &'a crate::result::SingleRow) -> Self {
        let (line, latency) = (&row.line, &row.line.latency);
        Self {
            proc: &line.proc,
            per_s: line.per_s,
            p50: latency.p50_us,
            p99: latency.p99_us,
            p999: latency.p999_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Mistake, Mistakes, tests::empty};

    #[test]
    fn a_page_needs_nothing_else_and_says_what_was_wrong() {
        let mut result = empty("<script>alert(1)</script>", Figures::Untar { rows: vec![] });
        result.complete = false;
        let kinds = vec![Mistake { proc: "READ".into(), what: "wrong content".into(), times: 3 }];
        result.mistakes = Mistakes { total: 3, kinds };
        let page = html(&[result.clone(), empty("b", Figures::Bulk { rows: vec![] })]);
        for absent in ["<script", "http://", "https://", "src=", "@import"] {
            assert!(!page.contains(absent), "{absent}");
        }
        for present in ["wrong content", "not complete", "3 replies were wrong", "&lt;script&gt;"] {
            assert!(page.contains(present), "{present}");
        }
        assert!(text(&result).contains("wrong: READ wrong content (3 times)"));
    }
}
