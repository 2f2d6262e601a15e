//! Figures with names and labels, as they are shown. Names follow the conventions of Prometheus: `slice_` in front, base
//! units (seconds, bytes), `_total` behind what only grows.

use crate::count::Snapshot;

/// What a sample is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Only grows.
    Counter(f64),
    /// Goes up and down.
    Gauge(f64),
    /// A histogram; values are multiplied by this to come to base units.
    Histogram(Snapshot, f64),
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name.
    pub name: &'static str,
    /// A sentence.
    pub help: &'static str,
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, String)>,
    /// What it is.
    pub value: Value,
}

/// Nanoseconds to seconds.
pub const SECONDS: f64 = 1e-9;

/// Figures that are gathered, all with the labels that are common now.
#[derive(Debug, Default)]
pub struct Samples {
    /// What has been gathered.
    pub list: Vec<Sample>,
    common: Vec<(&'static str, String)>,
}

/// Labels of a sample, beside the common ones.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Samples {
    /// What follows has these labels, in place of the common ones so far.
    pub fn under(&mut self, labels: Labels<'_>) {
        self.common = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    }

    /// A figure that only grows.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: f64) {
        self.push(name, help, labels, Value::Counter(value));
    }

    /// A figure that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: f64) {
        self.push(name, help, labels, Value::Gauge(value));
    }

    /// A histogram of durations.
    pub fn seconds(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, ns: Snapshot) {
        self.push(name, help, labels, Value::Histogram(ns, SECONDS));
    }

    /// A histogram of sizes.
    pub fn sizes(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, sizes: Snapshot) {
        self.push(name, help, labels, Value::Histogram(sizes, 1.0));
    }

    fn push(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: Value) {
        let own = labels.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let labels = self.common.iter().cloned().chain(own).collect();
        self.list.push(Sample { name, help, labels, value });
    }
}
