//! The numbers a key takes.

use std::fmt;

use figment::value::Num;
use serde_json::Value as Json;

/// One end of a range. Integers compare as integers: `u64::MAX` has no exact `f64`.
#[derive(Clone, Debug)]
struct Bound {
    integer: Option<i128>,
    float: f64,
    exclusive: bool,
}

/// A range by `minimum`, `maximum`, their exclusive forms, and the integer format.
#[derive(Clone, Debug, Default)]
pub(crate) struct Range {
    low: Option<Bound>,
    high: Option<Bound>,
}

impl Range {
    /// Reads the keywords of a schema through `keyword`.
    pub(crate) fn read<'a>(keyword: impl Fn(&str) -> Option<&'a Json>) -> Self {
        let format = keyword("format").and_then(Json::as_str).and_then(format_limits);
        let bound = |name, exclusive| {
            let number = keyword(name)?.as_number()?;
            Some(Bound {
                integer: number.as_i128(),
                float: number.as_f64()?,
                exclusive,
            })
        };
        let limit = |integer: i128| {
            Some(Bound {
                integer: Some(integer),
                float: float(integer),
                exclusive: false,
            })
        };
        Self {
            low: bound("minimum", false)
                .or_else(|| bound("exclusiveMinimum", true))
                .or_else(|| limit(format?.0)),
            high: bound("maximum", false)
                .or_else(|| bound("exclusiveMaximum", true))
                .or_else(|| limit(format?.1)),
        }
    }

    /// Without the ends of wide integer types, which nobody meets by accident.
    pub(crate) fn short(self) -> Self {
        const WIDE: u128 = u32::MAX as u128 / 2;
        let narrow = |bound: &Bound| bound.integer.is_none_or(|integer| integer.unsigned_abs() < WIDE);
        Self {
            low: self.low.filter(narrow),
            high: self.high.filter(narrow),
        }
    }

    pub(crate) fn contains(&self, number: &Num) -> bool {
        let above = self.low.as_ref().is_none_or(|low| {
            compare(number, low).is_some_and(std::cmp::Ordering::is_gt) || low.meets(number)
        });
        let below = self.high.as_ref().is_none_or(|high| {
            compare(number, high).is_some_and(std::cmp::Ordering::is_lt) || high.meets(number)
        });
        above && below
    }
}

impl Bound {
    /// Whether `number` is the bound, and the bound is in the range.
    fn meets(&self, number: &Num) -> bool {
        !self.exclusive && compare(number, self).is_some_and(std::cmp::Ordering::is_eq)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.integer {
            Some(integer) => integer.fmt(f),
            None => self.float.fmt(f),
        }
    }
}

/// `0 to 100`, `at least 1`, `above 0`; empty when nothing is excluded.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.low, &self.high) {
            (Some(low), Some(high)) if !low.exclusive && !high.exclusive => write!(f, "{low} to {high}"),
            (low, high) => {
                let words = |bound: &Bound, inclusive, exclusive| {
                    format!("{} {bound}", if bound.exclusive { exclusive } else { inclusive })
                };
                let low = low.as_ref().map(|low| words(low, "at least", "above"));
                let high = high.as_ref().map(|high| words(high, "at most", "below"));
                f.write_str(&low.into_iter().chain(high).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

fn compare(number: &Num, bound: &Bound) -> Option<std::cmp::Ordering> {
    match (integer_of(number), bound.integer) {
        (Some(number), Some(bound)) => Some(number.cmp(&bound)),
        (Some(number), None) => float(number).partial_cmp(&bound.float),
        (None, _) => number.to_f64()?.partial_cmp(&bound.float),
    }
}

/// The number as an integer; one beyond `i128` counts as its largest.
fn integer_of(number: &Num) -> Option<i128> {
    number.to_i128().or_else(|| {
        number
            .to_u128()
            .map(|unsigned| i128::try_from(unsigned).unwrap_or(i128::MAX))
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "used against bounds that are floats themselves"
)]
fn float(integer: i128) -> f64 {
    integer as f64
}

/// The range of an integer type, by the name `schemars` gives it.
fn format_limits(name: &str) -> Option<(i128, i128)> {
    let (signed, bits) = match name.strip_prefix("uint") {
        Some(bits) => (false, bits),
        None => (true, name.strip_prefix("int")?),
    };
    // `usize` and `isize` have no width in the schema; programs run on 64 bits.
    let bits: u32 = if bits.is_empty() {
        64
    } else {
        bits.parse().ok().filter(|bits| *bits <= 64)?
    };
    Some(if signed {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    })
}
