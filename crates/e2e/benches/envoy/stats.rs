//! Numbers of several rounds, summed up.

/// The middle of several numbers, and how far they are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without a number. The median of an even count is the mean of the two in the middle.
    pub(crate) fn of(numbers: &[f64]) -> Option<Self> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(*sorted.get(middle - 1)?, upper),
            _ => upper,
        };
        Some(Self { median, min, max })
    }
}

/// What each round has more than the base had in the same round.
pub(crate) fn added(rounds: &[f64], base: &[f64]) -> Vec<f64> {
    rounds.iter().zip(base).map(|(round, base)| round - base).collect()
}

/// How many times the other the one is; `None` where the other is nothing that can be divided by.
pub(crate) fn ratio(one: f64, other: f64) -> Option<f64> {
    (other > 0.0).then(|| one / other)
}
