//! Single values: types, formats, bounds and choices.

use std::str::FromStr;

use bytesize::ByteSize;
use figment::value::{Num, Value};

use crate::problem::ProblemKind;
use crate::schema::{Format, Shape, nearest};

/// What is wrong with a value.
pub(super) struct Fault {
    pub(super) kind: ProblemKind,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Checks a value that is neither a section nor a list, or should not be one.
pub(super) fn check(shape: &Shape<'_>, value: &mut Value) -> Result<(), Fault> {
    match shape.format() {
        Some(Format::Duration) => return duration(value),
        Some(Format::ByteSize) => return byte_size(value),
        None => {}
    }
    match &*value {
        Value::String(_, text) if shape.allows("string") => string(shape, text),
        Value::Bool(..) if shape.allows("boolean") => Ok(()),
        Value::Num(_, number) if shape.allows("number") => bounds(shape, number),
        Value::Num(_, number) if shape.allows("integer") && number.to_f64().is_none() => {
            bounds(shape, number)
        }
        _ => Err(wrong_type(shape, value)),
    }
}

fn wrong_type(shape: &Shape<'_>, value: &Value) -> Fault {
    let found = if shape.is_secret() {
        kind_of(value).to_owned()
    } else {
        found(value)
    };
    let fault = Fault::new(
        ProblemKind::WrongType,
        format!("expected {}, found {found}", expected(shape)),
    );
    match value {
        Value::Empty(..) => fault.hint("remove the key to keep the default"),
        Value::Num(..) | Value::Bool(..) if shape.allows("string") => fault.hint("put it in quotes"),
        Value::String(..) if shape.allows("array") => fault.hint("write a list: `[a, b]`"),
        Value::String(_, text)
            if shape.allows("boolean") && matches!(text.as_str(), "yes" | "no" | "on" | "off") =>
        {
            fault.hint("write `true` or `false`")
        }
        _ => fault,
    }
}

/// What a place takes, in words.
pub(crate) fn expected(shape: &Shape<'_>) -> String {
    match shape.format() {
        Some(Format::Duration) => return "a duration".to_owned(),
        Some(Format::ByteSize) => return "a size".to_owned(),
        None => {}
    }
    let choices = shape.choices();
    let named = (!choices.is_empty()).then(|| format!("one of {}", choices.join(", ")));
    let others = shape.variants().filter(|variant| variant.choices().is_empty());
    let variants: Vec<_> = named
        .into_iter()
        .chain(others.map(|variant| expected(&variant)))
        .collect();
    if !variants.is_empty() {
        return variants.join(" or ");
    }
    let words = shape.types().into_iter().map(|name| match name {
        "string" => "text",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        _ => "a section",
    });
    let words: Vec<_> = words.collect();
    if words.is_empty() {
        "a section".to_owned()
    } else {
        words.join(" or ")
    }
}

/// What a value is, without the value.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "text",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a section",
        Value::Array(..) => "a list",
    }
}

/// What a value is, with the value where it is one word.
fn found(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("text `{}`", shorten(text)),
        Value::Bool(_, bool) => format!("`{bool}`"),
        Value::Num(_, number) => format!("the number {}", shown(number)),
        _ => kind_of(value).to_owned(),
    }
}

/// A value in a message is there to be recognised, not to be read.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 40;
    if text.chars().count() <= LONGEST {
        return text.escape_debug().to_string();
    }
    let head: String = text.chars().take(LONGEST).collect();
    format!("{}…", head.escape_debug())
}

fn shown(number: &Num) -> String {
    match (number.to_u128(), number.to_i128(), number.to_f64()) {
        (Some(unsigned), _, _) => unsigned.to_string(),
        (_, Some(signed), _) => signed.to_string(),
        (_, _, float) => float.unwrap_or(f64::NAN).to_string(),
    }
}

fn string(shape: &Shape<'_>, text: &str) -> Result<(), Fault> {
    let choices = shape.choices();
    if !choices.is_empty() && !choices.contains(&text) {
        let (message, hint) = bad_choice(text, &choices);
        return Err(Fault::new(ProblemKind::BadValue, message).hint(hint));
    }
    // A reference to a secret is not as long as the secret.
    let length = text.chars().count();
    match length_fault(shape, "minLength", "maxLength", length).filter(|_| !shape.is_secret()) {
        Some((_, 1)) if text.is_empty() => Err(Fault::new(ProblemKind::OutOfRange, "must not be empty")),
        Some((bound, count)) => {
            let message = format!("is {length} characters long, {bound} {count} are allowed");
            Err(Fault::new(ProblemKind::OutOfRange, message))
        }
        None => Ok(()),
    }
}

/// Message and hint for a text that is none of the choices.
pub(super) fn bad_choice(text: &str, choices: &[&str]) -> (String, String) {
    let message = format!("`{}` is not one of the choices", shorten(text));
    let hint = match nearest(text, choices.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? It is one of {}", choices.join(", ")),
        None => format!("it is one of {}", choices.join(", ")),
    };
    (message, hint)
}

/// The bound a length breaks: `at least 1`, `at most 8`.
pub(super) fn length_fault(
    shape: &Shape<'_>,
    min: &str,
    max: &str,
    length: usize,
) -> Option<(&'static str, usize)> {
    match (shape.count(min), shape.count(max)) {
        (Some(min), _) if length < min => Some(("at least", min)),
        (_, Some(max)) if length > max => Some(("at most", max)),
        _ => None,
    }
}

fn bounds(shape: &Shape<'_>, number: &Num) -> Result<(), Fault> {
    let range = shape.range();
    if number.to_f64().is_some_and(f64::is_nan) {
        return Err(Fault::new(ProblemKind::OutOfRange, "must be a number, not `nan`"));
    }
    if range.contains(number) {
        return Ok(());
    }
    let message = format!("{} is out of range", shown(number));
    Err(Fault::new(ProblemKind::OutOfRange, message).hint(format!("it takes {range}")))
}

fn duration(value: &mut Value) -> Result<(), Fault> {
    let text = match &*value {
        Value::String(_, text) => text,
        Value::Num(tag, number) if number.to_u128() == Some(0) => {
            *value = Value::String(*tag, "0s".to_owned());
            return Ok(());
        }
        other => {
            let fault = Fault::new(
                ProblemKind::WrongType,
                format!("expected a duration, found {}", found(other)),
            );
            return Err(match other {
                Value::Num(_, number) => {
                    let number = shown(number);
                    fault.hint(format!(
                        "write the unit: `{number}s` for seconds, `{number}ms` for milliseconds"
                    ))
                }
                Value::Empty(..) => fault.hint("remove the key to keep the default"),
                _ => fault.hint(DURATION_HINT),
            });
        }
    };
    if humantime::parse_duration(text).is_ok() {
        return Ok(());
    }
    let message = format!("`{}` is not a duration", shorten(text));
    let hint = respelled(text, UNITS_OF_TIME, |text| {
        humantime::parse_duration(text).is_ok()
    });
    Err(Fault::new(ProblemKind::BadValue, message).hint(hint.unwrap_or_else(|| DURATION_HINT.to_owned())))
}

fn byte_size(value: &Value) -> Result<(), Fault> {
    let text = match value {
        Value::String(_, text) => text,
        Value::Num(_, number) if number.to_u128().is_some_and(|bytes| u64::try_from(bytes).is_ok()) => {
            return Ok(());
        }
        other => {
            let fault = Fault::new(
                ProblemKind::WrongType,
                format!("expected a size, found {}", found(other)),
            );
            return Err(fault.hint(SIZE_HINT));
        }
    };
    if ByteSize::from_str(text).is_ok() {
        return Ok(());
    }
    let message = format!("`{}` is not a size", shorten(text));
    let hint = respelled(text, UNITS_OF_SIZE, |text| ByteSize::from_str(text).is_ok());
    Err(Fault::new(ProblemKind::BadValue, message).hint(hint.unwrap_or_else(|| SIZE_HINT.to_owned())))
}

const DURATION_HINT: &str = "write a number and a unit: `100ms`, `90s`, `5m`, `1h`";
const SIZE_HINT: &str = "write a number and a unit: `64KiB`, `512MiB`, `1GiB`";

const UNITS_OF_TIME: &[&str] = &[
    "nanoseconds",
    "microseconds",
    "milliseconds",
    "seconds",
    "minutes",
    "hours",
    "days",
    "weeks",
    "ns",
    "us",
    "ms",
    "s",
    "m",
    "h",
];
const UNITS_OF_SIZE: &[&str] = &["B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"];

/// `5 minutess` → did you mean `5 minutes`? Only what parses is suggested.
fn respelled(text: &str, units: &[&str], parses: impl Fn(&str) -> bool) -> Option<String> {
    let text = text.trim();
    let number = text.trim_end_matches(|c: char| c.is_alphabetic());
    let unit = text.strip_prefix(number)?;
    if unit.is_empty() {
        return None;
    }
    let meant = format!("{number}{}", nearest(unit, units.iter().copied())?);
    parses(&meant).then(|| format!("did you mean `{meant}`?"))
}
