//! A table of ratios from the results of several servers, several rounds each.

use crate::error::Error;
use crate::micro::Outcome;
use std::fmt::Write as _;
use std::path::Path;

/// Reads results, one JSON object a line; other lines are an error.
///
/// # Errors
/// [`Error::File`].
pub fn read(path: &Path) -> Result<Vec<Outcome>, Error> {
    let shown = path.display().to_string();
    let fail = |why: String| Error::File { path: shown.as_str().into(), why: why.into() };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| serde_json::from_str(line).map_err(|e| fail(format!("line {}: {e}", n + 1))))
        .collect()
}

/// Median; of an even number the lower one of the middle two.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

fn unique<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for item in all {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

/// A figure with about three digits.
fn short(v: f64) -> String {
    match v {
        v if v >= 99_950.0 => format!("{:.0}k", v / 1e3),
        v if v >= 9_995.0 => format!("{:.1}k", v / 1e3),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Medians of one server's rounds of one operation.
struct Cell {
    rate: f64,
    cpu: Option<f64>,
    p50: f64,
    p99: f64,
    rounds: usize,
}

fn cell<'a>(rounds: impl Iterator<Item = &'a Outcome> + Clone) -> Option<Cell> {
    Some(Cell {
        rate: median(rounds.clone().map(|o| o.units_per_s))?,
        cpu: median(rounds.clone().filter_map(|o| o.cpu_us_per_unit)),
        p50: median(rounds.clone().map(|o| o.p50_us))?,
        p99: median(rounds.clone().map(|o| o.p99_us))?,
        rounds: rounds.count(),
    })
}

/// The table, in Markdown: a row an operation, and for each server the medians of its rounds: units a second, server CPU µs
/// a unit, p50 and p99 in µs; for every server but `base` also its CPU and rate over the base's.
#[must_use]
pub fn table(outcomes: &[Outcome], base: &str) -> String {
    let mut labels = unique(outcomes.iter().map(|o| o.label.as_str()));
    labels.sort_by_key(|label| *label != base);
    let rows = unique(outcomes.iter().map(|o| (o.op.as_str(), o.conns, o.inflight, o.unit.as_str())));
    let mut text = String::from("| operation | conns × in flight | unit |");
    for label in &labels {
        let _ = write!(text, " {label}: /s | CPU µs | p50 / p99 µs |");
        if *label != base {
            let _ = write!(text, " CPU ÷ {base} | rate ÷ {base} |");
        }
    }
    let columns = 3 + 3 * labels.len() + 2 * labels.iter().filter(|l| **l != base).count();
    let _ = writeln!(text, "\n|{}", " --- |".repeat(columns));
    let mut fewest = usize::MAX;
    for (op, conns, inflight, unit) in rows {
        let of = |label: &str| {
            let label = label.to_owned();
            cell(outcomes.iter().filter(move |o| {
                o.label == label && o.op == op && o.conns == conns && o.inflight == inflight && o.unit == unit
            }))
        };
        let reference = of(base);
        fewest = labels.iter().filter_map(|label| of(label)).map(|c| c.rounds).fold(fewest, usize::min);
        let _ = write!(text, "| {op} | {conns} × {inflight} | {unit} |");
        for label in &labels {
            let got = of(label);
            let _ = match &got {
                Some(c) => {
                    let cpu = c.cpu.map_or("–".to_owned(), short);
                    write!(text, " {} | {cpu} | {} / {} |", short(c.rate), short(c.p50), short(c.p99))
                }
                None => write!(text, " – | – | – |"),
            };
            if *label != base {
                let ratio = |f: fn(&Cell) -> Option<f64>| {
                    let (got, reference) = (got.as_ref().and_then(f)?, reference.as_ref().and_then(f)?);
                    (reference > 0.0).then(|| format!("{:.2}", got / reference))
                };
                let dash = || "–".to_owned();
                let cpu = ratio(|c| c.cpu).unwrap_or_else(dash);
                let rate = ratio(|c| Some(c.rate)).unwrap_or_else(dash);
                let _ = write!(text, " {cpu} | {rate} |");
            }
        }
        text.push('\n');
    }
    if fewest != usize::MAX {
        let _ = writeln!(text, "\nMedians of at least {fewest} rounds.");
    }
    text.push_str(&roles(outcomes));
    text
}

/// Where several kinds of processes serve: CPU µs a call of each, medians. Empty if there are none.
fn roles(outcomes: &[Outcome]) -> String {
    let several: Vec<_> = outcomes.iter().filter(|o| o.cpu_us_by_role.len() > 1).collect();
    let roles = unique(several.iter().flat_map(|o| o.cpu_us_by_role.keys()));
    if roles.is_empty() {
        return String::new();
    }
    let mut text = String::from("\nCPU µs a call by role:\n\n| server | operation | conns × in flight |");
    for role in &roles {
        let _ = write!(text, " {role} |");
    }
    let _ = writeln!(text, "\n|{}", " --- |".repeat(3 + roles.len()));
    for (label, op, conns, inflight) in
        unique(several.iter().map(|o| (o.label.as_str(), o.op.as_str(), o.conns, o.inflight)))
    {
        let _ = write!(text, "| {label} | {op} | {conns} × {inflight} |");
        let rounds = several
            .iter()
            .filter(|o| o.label == label && o.op == op && o.conns == conns && o.inflight == inflight);
        for role in &roles {
            let of_role = rounds.clone().filter_map(|o| o.cpu_us_by_role.get(*role).copied());
            let _ = write!(text, " {} |", median(of_role).map_or("–".to_owned(), short));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(label: &str, op: &str, rate: f64, cpu: f64) -> Outcome {
        Outcome {
            label: label.into(),
            op: op.into(),
            conns: 4,
            inflight: 16,
            seconds: 1.0,
            calls: 1,
            calls_per_s: rate,
            p50_us: 10.0,
            p99_us: 1234.0,
            unit: "call".into(),
            units_per_s: rate,
            cpu_us_per_call: Some(cpu),
            cpu_us_per_unit: Some(cpu),
            cpu_us_by_role: std::collections::BTreeMap::new(),
            load_cpu_us_per_call: 1.0,
        }
    }

    #[test]
    fn medians_and_ratios() {
        let all = [
            outcome("slice", "null", 200_000.0, 4.0),
            outcome("base", "null", 50_000.0, 16.0),
            outcome("base", "null", 60_000.0, 8.0),
            outcome("base", "null", 1.0, 99.0),
            outcome("base", "getattr", 9.0, 2.0),
        ];
        let text = table(&all, "base");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "| operation | conns × in flight | unit | base: /s | CPU µs | p50 / p99 µs | slice: /s | CPU µs \
             | p50 / p99 µs | CPU ÷ base | rate ÷ base |"
        );
        assert_eq!(lines[1].matches("---").count(), 11);
        assert_eq!(
            lines[2],
            "| null | 4 × 16 | call | 50.0k | 16.0 | 10.0 / 1234 | 200k | 4.00 | 10.0 / 1234 | 0.25 | 4.00 |"
        );
        assert_eq!(lines[3], "| getattr | 4 × 16 | call | 9.00 | 2.00 | 10.0 / 1234 | – | – | – | – | – |");
    }

    #[test]
    fn roles_are_told_apart() {
        let mut all = [outcome("sep", "null", 1.0, 4.0), outcome("sep", "null", 1.0, 4.0)];
        for (o, us) in all.iter_mut().zip([3.0, 5.0]) {
            o.cpu_us_by_role = [("dirserver".to_owned(), 1.0), ("proxy".to_owned(), us)].into();
        }
        let text = table(&all, "sep");
        assert!(text.contains("Medians of at least 2 rounds."), "{text}");
        assert!(text.contains("| server | operation | conns × in flight | dirserver | proxy |"), "{text}");
        assert!(text.ends_with("| sep | null | 4 × 16 | 1.00 | 3.00 |\n"), "{text}");
    }

    #[test]
    fn no_results_make_an_empty_table() {
        assert!(table(&[], "base").starts_with("| operation |"));
    }
}
