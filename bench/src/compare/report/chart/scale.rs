//! Axes: where a value lies between the two ends, and which values get a tick.

use crate::compare::report::figure;

const TICKS_MAX: usize = 7;

/// From values to shares of an axis, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::compare::report) enum Scale {
    /// From 0.
    Linear {
        high: f64,
    },
    Log {
        low: f64,
        high: f64,
    },
    /// Shares by how far they are from 1: 0, 90 %, 99 %, 99.9 % at even distances, `digits` of them.
    Nines {
        digits: f64,
    },
    /// Settings side by side.
    Places(Vec<f64>),
}

impl Scale {
    /// From 0 to a round number at or above all values.
    pub(in crate::compare::report) fn linear(values: impl Iterator<Item = f64>) -> Self {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let high = if most > 0.0 { most.min(1e15) } else { 1.0 };
        let step = step(high);
        Self::Linear { high: (high / step).ceil() * step }
    }

    /// From and to members of 1, 2, 5, 10..., which hold all values over 0 between them.
    pub(in crate::compare::report) fn log(values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (low, high) = (low.min(value.clamp(1e-6, 1e12)), high.max(value.clamp(1e-6, 1e12)));
        }
        if high == 0.0 {
            return Self::Log { low: 1.0, high: 10.0 };
        }
        let low = round_numbers(low / 10.0, low).pop().unwrap_or(low);
        let above = round_numbers(high, high * 10.1).first().copied().unwrap_or(high * 2.0);
        Self::Log { low, high: if above > low * 1.9 { above } else { low * 2.0 } }
    }

    /// The same, but from a little under `low`, so that a line at `low` does not lie on the axis.
    pub(in crate::compare::report) fn log_from(low: f64, values: impl Iterator<Item = f64>) -> Self {
        match Self::log(values.chain([low])) {
            Self::Log { low: least, high } if least >= low * 0.99 => Self::Log { low: least * 0.88, high },
            scale => scale,
        }
    }

    /// Where a value is, held between the ends; nothing for what has no place.
    pub(in crate::compare::report) fn share(&self, value: f64) -> Option<f64> {
        let share = match self {
            Self::Linear { high } => value / high,
            Self::Log { low, high } => (value.max(f64::MIN_POSITIVE) / low).ln() / (high / low).ln(),
            Self::Nines { digits } => -(1.0 - value).max(1e-9).log10() / digits,
            Self::Places(places) => {
                let at = places.iter().position(|place| (place - value).abs() < 1e-6)?;
                (at as f64 + 0.5) / places.len() as f64
            }
        };
        share.is_finite().then(|| share.clamp(0.0, 1.0))
    }

    /// Values with their text.
    pub(in crate::compare::report) fn ticks(&self) -> Vec<(f64, String)> {
        match self {
            Self::Linear { high } => {
                let step = step(*high);
                let count = (high / step).round() as usize;
                (0..=count).map(|nth| nth as f64 * step).map(|value| (value, number(value))).collect()
            }
            Self::Log { low, high } => {
                let mut values = round_numbers(*low, *high);
                let decade = |value: &f64| (value.log10() - value.log10().round()).abs() < 1e-6;
                if values.len() > TICKS_MAX {
                    values.retain(decade);
                }
                if values.len() < 3 {
                    let step = step(high - low);
                    let (first, last) = ((low / step).ceil() as u64, (high / step).floor() as u64);
                    values = (first..=last).take(TICKS_MAX + 1).map(|nth| nth as f64 * step).collect();
                }
                let every = values.len().div_ceil(TICKS_MAX).max(1);
                values.into_iter().step_by(every).map(|value| (value, number(value))).collect()
            }
            Self::Nines { digits } => [0.0_f64, 0.5, 0.9, 0.99, 0.999, 0.9999]
                .into_iter()
                .filter(|share| -(1.0 - share).log10() <= digits + 1e-6)
                .map(|share| (share, format!("{} %", figure::setting(share * 100.0))))
                .collect(),
            Self::Places(places) => places.iter().map(|place| (*place, figure::setting(*place))).collect(),
        }
    }
}

fn number(value: f64) -> String {
    if value >= 1e6 {
        format!("{} M", figure::setting(value / 1e6))
    } else if value >= 1_000.0 {
        figure::whole(value)
    } else if value >= 0.01 || value == 0.0 {
        figure::setting(value)
    } else {
        format!("{value:.0e}")
    }
}

/// 1, 2 or 5 by a power of ten: at most [`TICKS_MAX`] of it reach `high`.
fn step(high: f64) -> f64 {
    let power = 10_f64.powf((high / TICKS_MAX as f64).log10().floor());
    let fits = |step: &f64| high / step <= TICKS_MAX as f64;
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(fits).unwrap_or(high)
}

/// 1, 2 and 5 by powers of ten, from `low` to `high`, both included.
fn round_numbers(low: f64, high: f64) -> Vec<f64> {
    let first = low.log10().floor() as i32;
    let last = high.log10().ceil() as i32;
    (first..=last)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
        .filter(|value| *value >= low * (1.0 - 1e-9) && *value <= high * (1.0 + 1e-9))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Scale;

    fn texts(scale: &Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(texts(&Scale::linear([3.0, 96.5].into_iter())), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(
            texts(&Scale::log([50.2, 2743.0].into_iter())),
            ["50", "100", "200", "500", "1,000", "2,000", "5,000"]
        );
        assert_eq!(texts(&Scale::log([1.0, 1e9].into_iter())).len(), 5);
        assert_eq!(texts(&Scale::Nines { digits: 3.0 }), ["0 %", "50 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn values_without_a_place_and_beyond_the_ends_stay_inside() {
        for scale in [Scale::linear([f64::NAN, -1.0].into_iter()), Scale::log([0.0, f64::INFINITY].into_iter())] {
            for value in [-1e300, -1.0, 0.0, 1e300, 5e-324] {
                assert!((0.0..=1.0).contains(&scale.share(value).unwrap()), "{scale:?} {value}");
            }
            assert_eq!(scale.share(f64::NAN).filter(|share| share.is_nan()), None);
            assert!(scale.ticks().len() <= 9);
        }
        assert_eq!(Scale::Places(vec![0.0, 5.0]).share(1.0), None);
        assert!(Scale::log([1e-300, 1e300].into_iter()).ticks().len() <= 9);
    }
}
