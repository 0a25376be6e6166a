//! Vectors as they are kept: a byte a component, and one scale.
//!
//! A component of a unit vector is rounded to one of 255 steps between minus and plus the largest, and the scale is what
//! makes the rounded vector a unit vector again. That is a quarter of the bytes of `f32`, which is what a scan costs, and
//! moves a cosine by less than a hundredth (tested below): less than what models differ by about the same sentence.

/// Most components of a vector.
pub const DIMENSIONS_MAX: u16 = 4096;
/// Bytes of the scale, which come first.
const SCALE_BYTES: usize = 4;
/// Steps on either side of zero.
const STEPS: f32 = 127.0;
/// Sums that are kept apart, so that they can be computed side by side.
const LANES: usize = 8;

/// The vector of an item: `f32` scale in little-endian order, then one signed byte a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector(Box<[u8]>);

impl Vector {
    /// Rounds a vector; `None` if it has no direction (no components, none but zeros, one that is no number) or more
    /// than [`DIMENSIONS_MAX`] components.
    pub fn rounded(components: &[f32]) -> Option<Self> {
        let direction = Direction::of(components)?;
        let largest = direction.0.iter().fold(0.0_f32, |most, one| most.max(one.abs()));
        #[expect(clippy::cast_possible_truncation, reason = "between -127 and 127")]
        let rounded: Vec<i8> = direction
            .0
            .iter()
            .map(|one| (one / largest * STEPS).round() as i8)
            .collect();
        // The largest is 127, so this is not zero.
        let length = rounded
            .iter()
            .map(|one| f32::from(*one).powi(2))
            .sum::<f32>()
            .sqrt();
        let mut bytes = Vec::with_capacity(SCALE_BYTES + rounded.len());
        bytes.extend_from_slice(&(1.0 / length).to_le_bytes());
        bytes.extend(rounded.iter().map(|one| one.cast_unsigned()));
        Some(Self(bytes.into()))
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A unit vector, exactly: what is searched for.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction(Box<[f32]>);

impl Direction {
    /// The direction of a vector; `None` as for [`Vector::rounded`].
    pub fn of(components: &[f32]) -> Option<Self> {
        if components.len() > usize::from(DIMENSIONS_MAX) {
            return None;
        }
        let length = components
            .iter()
            .map(|one| f64::from(*one).powi(2))
            .sum::<f64>()
            .sqrt();
        if !length.is_finite() || length <= f64::from(f32::MIN_POSITIVE) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "between -1 and 1")]
        let unit = components
            .iter()
            .map(|one| (f64::from(*one) / length) as f32)
            .collect();
        Some(Self(unit))
    }

    /// The cosine of the angle to a stored vector; `None` if that has another number of components.
    pub fn cosine(&self, stored: &[u8]) -> Option<f32> {
        let (scale, components) = stored.split_first_chunk::<SCALE_BYTES>()?;
        if components.len() != self.0.len() {
            return None;
        }
        let (ours, our_rest) = self.0.as_chunks::<LANES>();
        let (theirs, their_rest) = components.as_chunks::<LANES>();
        let mut sums = [0.0_f32; LANES];
        for (our, their) in ours.iter().zip(theirs) {
            for ((sum, our), their) in sums.iter_mut().zip(our).zip(their) {
                *sum += our * f32::from(their.cast_signed());
            }
        }
        let rest: f32 = our_rest
            .iter()
            .zip(their_rest)
            .map(|(our, their)| our * f32::from(their.cast_signed()))
            .sum();
        Some((sums.iter().sum::<f32>() + rest) * f32::from_le_bytes(*scale))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_has_no_direction_is_no_vector() {
        for bad in [&[] as &[f32], &[0.0, 0.0], &[1.0, f32::NAN], &[f32::INFINITY]] {
            assert_eq!(Vector::rounded(bad), None, "{bad:?}");
        }
        assert_eq!(Vector::rounded(&vec![1.0; usize::from(DIMENSIONS_MAX) + 1]), None);
        assert!(Vector::rounded(&vec![1.0; usize::from(DIMENSIONS_MAX)]).is_some());
    }

    #[test]
    fn a_vector_of_another_size_is_not_compared() {
        let stored = Vector::rounded(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(
            Direction::of(&[1.0, 2.0]).unwrap().cosine(stored.as_bytes()),
            None
        );
        assert_eq!(Direction::of(&[1.0]).unwrap().cosine(&[0, 0]), None);
    }

    proptest! {
        #[test]
        fn rounding_moves_a_cosine_by_less_than_a_hundredth(
            (one, other) in (1_usize..300).prop_flat_map(|length| (
                prop::collection::vec(-1.0_f32..1.0, length),
                prop::collection::vec(-1.0_f32..1.0, length),
            ))
        ) {
            prop_assume!(one.iter().any(|x| x.abs() > 0.01) && other.iter().any(|x| x.abs() > 0.01));
            let (from, to) = (Direction::of(&one).unwrap(), Direction::of(&other).unwrap());
            let exact: f32 = from.0.iter().zip(&to.0).map(|(a, b)| a * b).sum();
            let stored = Vector::rounded(&other).unwrap();
            prop_assert_eq!(stored.as_bytes().len(), SCALE_BYTES + other.len());
            let cosine = from.cosine(stored.as_bytes()).unwrap();
            prop_assert!((cosine - exact).abs() < 0.01, "{cosine} for {exact}");
            prop_assert!((to.cosine(stored.as_bytes()).unwrap() - 1.0).abs() < 1e-3);
        }
    }
}
