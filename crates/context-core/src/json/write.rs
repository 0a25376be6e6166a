//! JSON written by hand, into one buffer: whatever is JSON already is copied as it is.

use crate::Timestamp;

/// A string, with its quotes.
#[expect(clippy::missing_panics_doc, reason = "writing to memory does not fail")]
pub fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("invariant: writing a string to memory does not fail");
}

/// The name of a field, which needs no escapes.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A field with a number.
// With the field's name known where it is called, what is before the digits is written by a store or two.
#[inline]
pub fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    field(out, name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A field with a time.
pub fn time(out: &mut Vec<u8>, name: &str, at: Timestamp) {
    field(out, name);
    out.push(b'"');
    at.write_to(out);
    out.push(b'"');
}

/// A field with a list, each value of which `one` writes.
pub fn each<T>(out: &mut Vec<u8>, name: &str, values: &[T], mut one: impl FnMut(&mut Vec<u8>, &T)) {
    field(out, name);
    out.push(b'[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        one(out, value);
    }
    out.push(b']');
}
