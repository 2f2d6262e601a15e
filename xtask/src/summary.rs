//! What ran, how it ended, and what did not run, and why. Nothing that was left out passes for a success.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::libtest::Ending;

/// The results of one chore or suite.
#[derive(Debug)]
pub struct Row {
    name: String,
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
    began: Instant,
    took: Duration,
}

impl Row {
    /// Begins a suite, and its clock.
    pub fn new(name: &str) -> Self {
        let (failed, skipped) = (Vec::new(), Vec::new());
        Self {
            name: name.to_owned(),
            passed: 0,
            failed,
            skipped,
            began: Instant::now(),
            took: Duration::ZERO,
        }
    }

    /// Adds a test's ending.
    pub fn add(&mut self, test: &str, ending: Ending) {
        match ending {
            Ending::Passed => self.passed += 1,
            Ending::Failed => self.failed.push(test.to_owned()),
            Ending::Ignored(reason) => self.skipped.push((test.to_owned(), reason)),
        }
    }

    /// Adds a whole step as one test.
    pub fn step(&mut self, test: &str, passed: bool) {
        self.add(test, if passed { Ending::Passed } else { Ending::Failed });
    }

    /// How many tests have failed.
    pub fn failures(&self) -> usize {
        self.failed.len()
    }

    /// How many tests there were, skipped ones too.
    pub fn tests(&self) -> usize {
        self.passed + self.failed.len() + self.skipped.len()
    }
}

/// The rows, in the order of their running.
#[derive(Debug, Default)]
pub struct Summary {
    rows: Vec<Row>,
}

impl Summary {
    /// Ends a row's clock and keeps it.
    pub fn keep(&mut self, mut row: Row) {
        row.took = row.began.elapsed();
        self.rows.push(row);
    }

    /// Adds another's rows behind ours.
    pub fn append(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    /// True if nothing failed.
    pub fn good(&self) -> bool {
        self.rows.iter().all(|row| row.failed.is_empty())
    }

    /// The whole report; its last line is `N passed, N failed, N skipped`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        for row in &self.rows {
            let Row { name, passed, failed, skipped, took, .. } = row;
            let (failed, skipped, seconds) = (failed.len(), skipped.len(), took.as_secs());
            let _ = writeln!(
                text,
                "{name:width$}  {passed:4} passed {failed:3} failed {skipped:3} skipped {seconds:5} s"
            );
        }
        self.lines(&mut text, "skipped", |row| {
            // Tests that share a reason share a line.
            let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
            for (test, reason) in &row.skipped {
                match reasons.iter_mut().find(|(known, _)| known == reason) {
                    Some((_, tests)) => tests.push(test),
                    None => reasons.push((reason.clone(), vec![test])),
                }
            }
            let say = |reason: String| if reason.is_empty() { "no reason given".to_owned() } else { reason };
            reasons
                .into_iter()
                .map(|(reason, tests)| format!("{}: {}", tests.join(" "), say(reason)))
                .collect()
        });
        self.lines(&mut text, "FAILED", |row| row.failed.clone());
        let sum = |count: fn(&Row) -> usize| self.rows.iter().map(count).sum::<usize>();
        let (passed, failed) = (sum(|row| row.passed), sum(|row| row.failed.len()));
        let _ = write!(text, "\n{passed} passed, {failed} failed, {} skipped", sum(|row| row.skipped.len()));
        text
    }

    fn lines(&self, text: &mut String, title: &str, of: impl Fn(&Row) -> Vec<String>) {
        for row in &self.rows {
            for line in of(row) {
                let _ = writeln!(text, "{title}: {}: {line}", row.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_and_every_skip_has_a_reason() {
        let mut summary = Summary::default();
        let mut row = Row::new("stock_fsx");
        row.add("hash", Ending::Passed);
        row.add("mkdir", Ending::Failed);
        row.add("a", Ending::Ignored("qemu is missing".into()));
        row.add("b", Ending::Ignored("qemu is missing".into()));
        summary.keep(row);
        let mut row = Row::new("format");
        row.step("format", true);
        summary.keep(row);
        assert!(!summary.good());
        let text = summary.text();
        assert!(text.contains("skipped: stock_fsx: a b: qemu is missing\n"), "{text}");
        assert!(text.contains("FAILED: stock_fsx: mkdir\n"), "{text}");
        assert_eq!(text.lines().last(), Some("2 passed, 1 failed, 2 skipped"));
    }
}
