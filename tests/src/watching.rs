//! Looks at a running ensemble as those who watch it do: HTTP, and Prometheus's text format read strictly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: a test may stop at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// GETs `path` from `at` (`ADDR:PORT`): status and body.
#[must_use]
pub fn get(at: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "the length is known: {head}");
    (status, body.to_owned())
}

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// Everything that one or several scrapes showed.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// Values by name and labels.
    pub values: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    /// Scrapes all of these addresses.
    #[must_use]
    pub fn of<'a>(addresses: impl IntoIterator<Item = &'a String>) -> Self {
        let mut all = Self::default();
        // In one process all servers answer at one address.
        for at in addresses.into_iter().collect::<BTreeSet<_>>() {
            let (status, text) = get(at, "/metrics");
            assert_eq!(status, 200, "{text}");
            all.values.extend(parse(&text).unwrap_or_else(|error| panic!("{at}: {error}\n{text}")));
        }
        all
    }

    /// Sum of all values of this name whose labels have these among them.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |l: &Labels| labels.iter().all(|(k, v)| l.get(*k).is_some_and(|have| have == v));
        self.values.iter().filter(|((n, l), _)| n == name && has(l)).map(|(_, v)| v).sum()
    }

    /// Every name.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        self.values.keys().map(|(name, _)| name.as_str()).collect()
    }
}

fn is_name(name: &str, colon: bool) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || (colon && c == ':');
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// Reads the text format, version 0.0.4, as strictly as its description allows, and as promtool's lint asks: HELP, TYPE, then the
/// samples of one family, each family once; counters end in `_total`; a histogram's buckets grow and end in `+Inf`, which is
/// its count.
///
/// # Errors
/// What is wrong, with the line.
pub fn parse(text: &str) -> Result<BTreeMap<(String, Labels), f64>, String> {
    let mut values = BTreeMap::new();
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    let (mut helped, mut family) = (None::<String>, None::<(String, String)>);
    if !text.ends_with('\n') {
        return Err("the last line does not end".into());
    }
    for line in text.lines() {
        let wrong = |why: &str| Err(format!("{why}: {line:?}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, help)) = rest.split_once(' ') else { return wrong("no help") };
            if help.trim().is_empty() || families.contains_key(name) {
                return wrong("an empty help, or a family that comes twice");
            }
            helped = Some(name.to_owned());
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return wrong("no type") };
            if helped.as_deref() != Some(name) || !["counter", "gauge", "histogram"].contains(&kind) {
                return wrong("a type without help, or an unknown one");
            }
            if !is_name(name, true) || (kind == "counter") != name.ends_with("_total") {
                return wrong("a name against the conventions");
            }
            families.insert(name.to_owned(), kind.to_owned());
            family = Some((name.to_owned(), kind.to_owned()));
            continue;
        }
        let (name, labels, value) = sample(line).ok_or_else(|| format!("no sample: {line:?}"))?;
        let Some((of, kind)) = &family else { return wrong("a sample of no family") };
        let belongs = if kind == "histogram" {
            ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(of))
        } else {
            name == *of
        };
        if !belongs || value.is_nan() || (kind != "gauge" && value < 0.0) {
            return wrong("a sample of another family, or a value that cannot be");
        }
        if values.insert((name, labels), value).is_some() {
            return wrong("a sample that comes twice");
        }
    }
    for (name, _) in families.iter().filter(|(_, kind)| *kind == "histogram") {
        histogram(name, &values)?;
    }
    Ok(values)
}

/// Checks each histogram of a family.
fn histogram(name: &str, values: &BTreeMap<(String, Labels), f64>) -> Result<(), String> {
    let mut all: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for ((n, labels), value) in values {
        if n.strip_suffix("_bucket") == Some(name) {
            let mut labels = labels.clone();
            let bound = labels.remove("le").ok_or("a bucket without a bound")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().map_err(|_| bound)? };
            all.entry(labels).or_default().push((bound, *value));
        }
    }
    for (labels, mut buckets) in all {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count = values.get(&(format!("{name}_count"), labels.clone())).copied();
        let grows = buckets.windows(2).all(|w| w[0].1 <= w[1].1);
        let ends = buckets.last().is_some_and(|(bound, n)| bound.is_infinite() && Some(*n) == count);
        if !grows || !ends || !values.contains_key(&(format!("{name}_sum"), labels.clone())) {
            return Err(format!("{name} {labels:?} is no histogram: {buckets:?}, count {count:?}"));
        }
    }
    Ok(())
}

/// `name{label="value",…} 1.5`, without a timestamp.
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            let close = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next()?.1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        _ => return None,
                    }),
                    (_, c) => value.push(c),
                }
            };
            if !is_name(label, false) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = after.get(close + 1..)?;
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name, true).then(|| (name.to_owned(), labels, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_the_format_is_found() {
        let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\\\"\",y=\"\"} 3\na_total 4\n";
        let values = parse(good).unwrap();
        assert_eq!(values.len(), 2);
        assert!(values.keys().any(|(_, l)| l.get("x").is_some_and(|v| v == "1\"")));
        for (bad, why) in [
            ("# HELP a_total A.\n# TYPE a_total counter\na_total 3", "does not end"),
            ("a_total 3\n", "no family"),
            ("# HELP a A.\n# TYPE a counter\na 3\n", "conventions"),
            ("# HELP a_total A.\n# TYPE a_total counter\na_total 3\na_total 3\n", "comes twice"),
            ("# HELP a_total A.\n# TYPE a_total counter\na_total x\n", "no sample"),
            ("# HELP a_total A.\n# TYPE a_total counter\nb_total 1\n", "another family"),
            (
                "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
                "no histogram",
            ),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
