//! What benches make of their rounds.

/// The one in the middle, the upper of two.
///
/// # Panics
/// Without any.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of the ratios of rounds that follow each other: a machine is not the same for long.
///
/// # Panics
/// Without any.
#[must_use]
pub fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let rounds = ours.iter().zip(theirs);
    median(rounds.map(|(ours, theirs)| ours / theirs).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_compares_neighbours() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        // The machine was ten times as fast in the second round.
        let (ours, theirs) = ([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]);
        assert!((ratio(&ours, &theirs) - 2.0).abs() < f64::EPSILON);
    }
}
