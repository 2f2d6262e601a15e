//! When requests are due, which loads are offered, and what the figures of a whole run are. Pure.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// The moments, from the start of a load point, at which requests are due: a Poisson process, which is what many
/// clients that know nothing of each other make together.
#[derive(Debug)]
pub struct Arrivals {
    rng: StdRng,
    mean_s: f64,
    next_s: f64,
}

impl Arrivals {
    /// At `rate` requests a second.
    #[must_use]
    pub fn new(rate: f64, seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), mean_s: 1.0 / rate.max(f64::MIN_POSITIVE), next_s: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // 1 − [0, 1) is never 0, so the logarithm is finite.
        self.next_s -= (1.0 - self.rng.random::<f64>()).ln() * self.mean_s;
        Some(Duration::try_from_secs_f64(self.next_s).unwrap_or(Duration::MAX))
    }
}

/// `n` evenly spaced loads up to `peak`, in operations a second.
#[must_use]
pub fn load_points(peak: f64, n: u32) -> Vec<f64> {
    (1..=n).map(|i| peak * f64::from(i) / f64::from(n)).collect()
}

/// The overall response time: the area under latency over delivered load, from the origin, by trapezoids, divided
/// by the peak delivered load. In the latencies' unit. Points that deliver no more than one before
/// them are beyond the peak, and not of the curve.
#[must_use]
pub fn overall_response_time(points: &[(f64, f64)]) -> Option<f64> {
    let (mut area, mut last) = (0.0, (0.0, 0.0));
    for &(load, latency) in points {
        if load > last.0 {
            area += (load - last.0) * (latency + last.1) / 2.0;
            last = (load, latency);
        }
    }
    (last.0 > 0.0).then(|| area / last.0)
}

/// A load that was tried in the search of the peak.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// Operations a second.
    pub offered: f64,
    /// Whether the server kept up.
    pub kept_up: bool,
}

/// What the search of the peak does next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// Tries this load.
    Try(f64),
    /// The peak is known, as far as a quick search can.
    Peak(f64),
}

/// The load with which the search begins.
const FIRST_PROBE: f64 = 500.0;
/// Loads outside of which the search does not go.
const PROBE_RANGE: (f64, f64) = (2.0, 1e6);
/// The peak is known when the bounds are this close.
const CLOSE: f64 = 1.2;

/// Doubles while the server keeps up, halves while it does not, then narrows down.
#[must_use]
pub fn next_probe(tried: &[Probe]) -> Next {
    let best = |kept_up: bool| tried.iter().filter(move |p| p.kept_up == kept_up).map(|p| p.offered);
    let failed = best(false).reduce(f64::min);
    // A load below one that failed counts only if it kept up; above, it was luck.
    let kept = best(true).filter(|o| failed.is_none_or(|f| *o < f)).reduce(f64::max);
    match (kept, failed) {
        (None, None) => Next::Try(FIRST_PROBE),
        (Some(low), None) if low * 2.0 <= PROBE_RANGE.1 => Next::Try(low * 2.0),
        (Some(low), None) => Next::Peak(low),
        (None, Some(high)) if high / 2.0 >= PROBE_RANGE.0 => Next::Try(high / 2.0),
        (None, Some(high)) => Next::Peak(high),
        (Some(low), Some(high)) if high / low <= CLOSE => Next::Peak(low),
        (Some(low), Some(high)) => Next::Try((low * high).sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ort_of_a_known_curve() {
        // Flat from the second point on: the triangle from the origin, then a rectangle.
        let got = overall_response_time(&[(100.0, 2.0), (200.0, 2.0)]).unwrap();
        assert!((got - (100.0 + 200.0) / 200.0).abs() < 1e-9);
        // What is past the peak does not count.
        let past = overall_response_time(&[(100.0, 2.0), (200.0, 2.0), (150.0, 900.0)]).unwrap();
        assert!((got - past).abs() < 1e-9);
        assert_eq!(overall_response_time(&[]), None);
        assert_eq!(overall_response_time(&[(0.0, 1.0)]), None);
    }

    proptest! {
        #[test]
        fn ort_is_within_the_latencies(
            mut loads in proptest::collection::vec(1.0f64..1e5, 1..12), latency in 0.01f64..1e3,
        ) {
            loads.sort_by(f64::total_cmp);
            let points: Vec<_> = loads.iter().map(|l| (*l, latency)).collect();
            let ort = overall_response_time(&points).unwrap();
            prop_assert!(ort > 0.0 && ort <= latency * 1.000_001, "{ort} of {latency}");
        }

        #[test]
        fn points_are_evenly_spaced(peak in 1.0f64..1e6, n in 1u32..40) {
            let all = load_points(peak, n);
            prop_assert_eq!(all.len(), n as usize);
            prop_assert!((all[all.len() - 1] - peak).abs() < 1e-6 * peak);
            for pair in all.windows(2) {
                prop_assert!((pair[1] - pair[0] - peak / f64::from(n)).abs() < 1e-6 * peak);
            }
        }

        #[test]
        fn arrivals_never_go_back_and_keep_their_rate(rate in 10.0f64..100_000.0, seed: u64) {
            let n = 20_000;
            let all: Vec<_> = Arrivals::new(rate, seed).take(n).collect();
            prop_assert!(all.windows(2).all(|p| p[0] <= p[1]));
            // Six standard deviations of the time of the n-th arrival.
            let (took, expected) = (all[n - 1].as_secs_f64(), n as f64 / rate);
            prop_assert!((took - expected).abs() < 6.0 * expected / (n as f64).sqrt(), "{took} for {expected}");
        }

        #[test]
        fn the_search_ends_near_the_capacity(capacity in 10.0f64..500_000.0) {
            let mut tried = Vec::new();
            loop {
                match next_probe(&tried) {
                    Next::Try(offered) => tried.push(Probe { offered, kept_up: offered <= capacity }),
                    Next::Peak(peak) => {
                        prop_assert!(peak <= capacity && peak * CLOSE >= capacity, "{peak} of {capacity}");
                        break;
                    }
                }
                prop_assert!(tried.len() < 40, "no end: {tried:?}");
            }
        }

        #[test]
        fn the_search_ends_whatever_it_sees(luck in proptest::collection::vec(any::<bool>(), 64)) {
            let mut tried = Vec::new();
            for kept_up in luck {
                match next_probe(&tried) {
                    Next::Try(offered) => tried.push(Probe { offered, kept_up }),
                    Next::Peak(_) => return Ok(()),
                }
            }
            prop_assert!(false, "no end: {tried:?}");
        }
    }
}
