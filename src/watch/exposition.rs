//! Samples in Prometheus's text format, version 0.0.4: grouped by name, each with its help and type.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use slice_metrics::{Sample, Samples, Snapshot, Value};
use std::collections::BTreeMap;

/// What the text is, as HTTP says it.
pub const FORMAT: &str = prometheus::TEXT_FORMAT;

/// All samples as text.
///
/// # Errors
/// If a family has no samples, or the like: a fault of ours.
pub fn text(samples: Samples) -> prometheus::Result<Vec<u8>> {
    let mut families: BTreeMap<&'static str, MetricFamily> = BTreeMap::new();
    for sample in samples.list {
        let family = families.entry(sample.name).or_insert_with(|| family(&sample));
        let metric = metric(sample);
        let mut metrics = family.take_metric();
        metrics.push(metric);
        family.set_metric(metrics);
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&families.into_values().collect::<Vec<_>>(), &mut text)?;
    Ok(text)
}

fn family(sample: &Sample) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(sample.name.to_owned());
    family.set_help(sample.help.to_owned());
    family.set_field_type(match sample.value {
        Value::Counter(_) => MetricType::COUNTER,
        Value::Gauge(_) => MetricType::GAUGE,
        Value::Histogram(..) => MetricType::HISTOGRAM,
    });
    family
}

fn metric(sample: Sample) -> Metric {
    let labels = sample.labels.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(labels.collect());
    match sample.value {
        Value::Counter(value) => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        Value::Gauge(value) => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        Value::Histogram(snapshot, unit) => metric.set_histogram(histogram(&snapshot, unit)),
    }
    metric
}

fn histogram(snapshot: &Snapshot, unit: f64) -> Histogram {
    let mut below = 0;
    let buckets = snapshot.bounds.iter().zip(&snapshot.buckets).map(|(bound, n)| {
        below += n;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(below);
        // Whole nanoseconds: 0.0001, not 0.00009999999999999999.
        bucket.set_upper_bound((*bound as f64 * unit * 1e9).round() / 1e9);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(snapshot.count());
    histogram.set_sample_sum(snapshot.sum as f64 * unit);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_metrics::Histogram;

    #[test]
    fn families_are_whole_and_in_base_units() {
        let mut samples = Samples::default();
        let h = Histogram::durations();
        h.observe(90_000);
        h.observe(u64::MAX / 2);
        samples.seconds("slice_x_seconds", "X.", &[("procedure", "READ")], h.snapshot());
        samples.counter("slice_y_total", "Y.", &[("server", "a\"b")], 3.0);
        samples.seconds("slice_x_seconds", "X.", &[("procedure", "WRITE")], h.snapshot());
        let text = String::from_utf8(text(samples).unwrap()).unwrap();
        assert_eq!(text.matches("# TYPE slice_x_seconds histogram").count(), 1, "{text}");
        for line in [
            "slice_x_seconds_bucket{procedure=\"READ\",le=\"0.0001\"} 1",
            "slice_x_seconds_bucket{procedure=\"READ\",le=\"+Inf\"} 2",
            "slice_x_seconds_count{procedure=\"WRITE\"} 2",
            "slice_y_total{server=\"a\\\"b\"} 3",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
