//! Where a value stands on an axis, and which values are named there. Pure.

/// Ticks that an axis has at most, about.
const TICKS: f64 = 6.0;

/// How values are spread over an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Evenly, from 0.
    Linear,
    /// By their logarithm.
    Log,
    /// The values that there are, one beside the other.
    Steps,
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
    /// Values that are named.
    pub ticks: Vec<f64>,
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `v`.
fn nice(v: f64) -> f64 {
    let power = 10f64.powf(v.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|t| t * power >= v * (1.0 - 1e-9)).unwrap_or(10.0);
    times * power
}

impl Scale {
    /// An axis for these values; those that are not finite, and on a logarithmic axis not positive, are left out.
    #[must_use]
    pub fn new(kind: Kind, values: impl Iterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = values
            .filter(|v| v.is_finite() && if kind == Kind::Log { *v > 0.0 } else { *v >= 0.0 })
            .collect();
        all.sort_by(f64::total_cmp);
        let (least, most) = (all.first().copied().unwrap_or(1.0), all.last().copied().unwrap_or(1.0));
        match kind {
            Kind::Steps => {
                all.dedup();
                // Half a step of room on both sides.
                Self { kind, low: -0.5, high: all.len().max(1) as f64 - 0.5, ticks: all }
            }
            Kind::Linear => {
                let step = nice(most.max(f64::MIN_POSITIVE.sqrt()) / TICKS);
                let n = (most / step * (1.0 - 1e-9)).ceil().max(1.0);
                let ticks = (0..=n as u32).map(|i| f64::from(i) * step).collect();
                Self { kind, low: 0.0, high: n * step, ticks }
            }
            Kind::Log => {
                let (low, mut high) = (least.log10().floor(), (most * (1.0 - 1e-9)).log10().ceil());
                if high <= low {
                    high = low + 1.0;
                }
                let ticks = (low as i32..=high as i32).map(|e| 10f64.powi(e)).collect();
                Self { kind, low, high, ticks }
            }
        }
    }

    /// Where a value stands: 0 is the axis's beginning, 1 its end; none if it has no place.
    #[must_use]
    pub fn place(&self, v: f64) -> Option<f64> {
        let at = match self.kind {
            Kind::Linear => v,
            Kind::Log if v > 0.0 => v.log10(),
            Kind::Log => return None,
            Kind::Steps => {
                let (i, _) = self.ticks.iter().enumerate().find(|(_, t)| (*t - v).abs() < 1e-9)?;
                i as f64
            }
        };
        let place = (at - self.low) / (self.high - self.low);
        (-1e-6..=1.0 + 1e-6).contains(&place).then_some(place)
    }
}

/// A figure with about three digits, and with thousands set off.
#[must_use]
pub fn short(v: f64) -> String {
    let digits = match v.abs() {
        0.0 => 0,
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.995 => 2,
        _ => 3,
    };
    let text = format!("{v:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    let n = whole.trim_start_matches('-').len();
    for (i, c) in whole.chars().enumerate() {
        let left = whole.chars().count() - i;
        if n > 4 && i > 0 && left % 3 == 0 && c != '-' && !out.ends_with('-') {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_has_a_place_and_order_is_kept(
            kind in prop_oneof![Just(Kind::Linear), Just(Kind::Log), Just(Kind::Steps)],
            mut values in proptest::collection::vec(1e-4f64..1e9, 1..20),
        ) {
            values.sort_by(f64::total_cmp);
            let scale = Scale::new(kind, values.iter().copied());
            let places: Vec<_> = values.iter().map(|v| scale.place(*v).unwrap()).collect();
            prop_assert!(places.windows(2).all(|p| p[0] <= p[1] + 1e-12));
            prop_assert!(scale.ticks.iter().all(|t| scale.place(*t).is_some()));
            if kind != Kind::Steps {
                prop_assert!((2..=20).contains(&scale.ticks.len()), "{:?}", scale.ticks);
            }
        }

        #[test]
        fn linear_axes_are_not_mostly_empty(most in 1e-3f64..1e9) {
            let scale = Scale::new(Kind::Linear, [most].into_iter());
            prop_assert!(scale.place(most).unwrap() > 0.5);
            prop_assert!(scale.ticks.len() <= 8);
        }
    }

    #[test]
    fn nothing_to_show_is_no_panic() {
        for kind in [Kind::Linear, Kind::Log, Kind::Steps] {
            let scale = Scale::new(kind, [f64::NAN, f64::INFINITY, -1.0].into_iter());
            assert_eq!(scale.place(f64::NAN), None);
        }
        assert!(Scale::new(Kind::Linear, [0.0].into_iter()).place(0.0).is_some());
    }

    #[test]
    fn figures_are_short() {
        for (v, expected) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (1.0, "1"),
            (12.34, "12.3"),
            (999.6, "1000"),
            (12_345.0, "12\u{202f}345"),
            (1_234_567.0, "1\u{202f}234\u{202f}567"),
            (-12_345.0, "-12\u{202f}345"),
        ] {
            assert_eq!(short(v), expected);
        }
    }
}
