//! Words and where they stand, as Postgres keeps them: the binary form of a `tsvector`.
//!
//! Sorted and without repetition already, a vector need not be parsed by the database. The form is that of `tsvectorrecv`
//! (`PostgreSQL`, `src/backend/utils/adt/tsvector.c`): the number of words, then for each its bytes up to a zero, the number
//! of its positions and these, ascending, as 16-bit numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::search::words;

/// Longest word that is indexed, in bytes; Postgres takes 2,046. A longer one is cut, in queries as well.
const WORD_BYTES_MAX: usize = 512;
/// Size of a vector, in bytes as we count; Postgres takes a megabyte.
const VECTOR_BYTES_MAX: usize = 512 * 1024;
/// Positions of one word that Postgres keeps.
const POSITIONS_MAX: usize = 255;
/// The last position that Postgres tells apart.
const POSITION_MAX: u16 = 16_383;

/// The words of an item, its tenant and its stream, as they are sent.
#[derive(Debug)]
pub(super) struct Vector(Vec<u8>);

impl Vector {
    /// What is found of an item with this text. What does not fit into a vector is left out, from the end.
    pub(super) fn of(tenant: &str, stream_no: i64, text: &str) -> Self {
        // In the order in which they are sent, and no text can make its lookups slow.
        let mut places: BTreeMap<Cow<'_, str>, Vec<u16>> = BTreeMap::new();
        let mut bytes = 0;
        for (index, found) in words(text).enumerate() {
            let found = cut(found);
            let position =
                u16::try_from(index + 1).map_or(POSITION_MAX, |position| position.min(POSITION_MAX));
            if let Some(positions) = places.get_mut(&found) {
                if positions.len() < POSITIONS_MAX && positions.last() != Some(&position) {
                    positions.push(position);
                    bytes += 2;
                }
                continue;
            }
            bytes += found.len() + 6;
            if bytes > VECTOR_BYTES_MAX {
                break;
            }
            let mut positions = Vec::with_capacity(4);
            positions.push(position);
            places.insert(found, positions);
        }
        places.insert(tenant_word(tenant).into(), Vec::new());
        places.insert(stream_word(stream_no).into(), Vec::new());
        Self(encoded(&places, bytes))
    }
}

/// Words, sorted, in the form in which Postgres receives them; `bytes` is about how many these will be. The numbers fit:
/// there are fewer words than bytes, and positions are bounded.
fn encoded(places: &BTreeMap<Cow<'_, str>, Vec<u16>>, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + 256);
    out.put_u32(u32::try_from(places.len()).unwrap_or(u32::MAX));
    for (word, positions) in places {
        out.put_slice(word.as_bytes());
        out.put_u8(0);
        out.put_u16(u16::try_from(positions.len()).unwrap_or(u16::MAX));
        for position in positions {
            out.put_u16(*position);
        }
    }
    out
}

fn cut(found: Cow<'_, str>) -> Cow<'_, str> {
    match found {
        Cow::Borrowed(found) => Cow::Borrowed(word(found)),
        Cow::Owned(mut found) => {
            found.truncate(word(&found).len());
            Cow::Owned(found)
        }
    }
}

/// The word that stands for a tenant in its vectors.
pub(super) fn tenant_word(tenant: &str) -> String {
    format!("#{tenant}")
}

fn stream_word(stream_no: i64) -> String {
    format!("@{stream_no}")
}

/// A word as it is indexed and searched.
pub(super) fn word(word: &str) -> &str {
    let mut end = word.len().min(WORD_BYTES_MAX);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    word.get(..end).unwrap_or(word)
}

impl ToSql for Vector {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    accepts!(TS_VECTOR);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use bytes::Buf as _;

    use super::*;

    /// What Postgres would read.
    fn places(vector: &Vector) -> BTreeMap<String, Vec<u16>> {
        let mut left = vector.0.as_slice();
        let mut places = BTreeMap::new();
        for _ in 0..left.get_u32() {
            let end = left.iter().position(|byte| *byte == 0).unwrap();
            let word = String::from_utf8(left[..end].to_vec()).unwrap();
            left.advance(end + 1);
            let positions = (0..left.get_u16()).map(|_| left.get_u16()).collect();
            assert!(
                places.last_key_value().is_none_or(|(before, _)| *before < word),
                "{word} is not in its order"
            );
            places.insert(word, positions);
        }
        assert!(left.is_empty());
        places
    }

    #[test]
    fn a_vector_has_the_tenant_the_stream_and_the_places_of_words() {
        let places = places(&Vector::of("acme", 7, "To be, or not to be"));
        let places: Vec<_> = places
            .iter()
            .map(|(word, places)| (word.as_str(), places.as_slice()))
            .collect();
        let expected: [(&str, &[u16]); 6] = [
            ("#acme", &[]),
            ("@7", &[]),
            ("be", &[2, 6]),
            ("not", &[4]),
            ("or", &[3]),
            ("to", &[1, 5]),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn it_is_written_as_postgres_reads_it() {
        let mut out = BytesMut::new();
        let vector = Vector(encoded(
            &BTreeMap::from([("a".into(), vec![1, 258]), ("bc".into(), Vec::new())]),
            0,
        ));
        vector.to_sql(&Type::TS_VECTOR, &mut out).unwrap();
        assert_eq!(&out[..], b"\0\0\0\x02a\0\0\x02\0\x01\x01\x02bc\0\0\0");
    }

    #[test]
    fn positions_ascend_also_where_postgres_tells_no_more_apart() {
        let many = places(&Vector::of("acme", 1, &"be ".repeat(20_000)));
        assert_eq!(many["be"].len(), POSITIONS_MAX);
        let far = format!("{} to be to be", "x ".repeat(20_000));
        let places = places(&Vector::of("acme", 1, &far));
        assert_eq!(
            (&places["to"], &places["be"]),
            (&vec![POSITION_MAX], &vec![POSITION_MAX])
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let many: Vec<String> = (0..200_000).map(|n| format!("w{n}")).collect();
        let places = places(&Vector::of("acme", 1, &many.join(" ")));
        let bytes: usize = places.keys().map(|word| word.len() + 6).sum();
        assert!(bytes < VECTOR_BYTES_MAX + 100, "{bytes}");
        assert!(places.contains_key("w0") && !places.contains_key("w199999"));
        assert_eq!(word(&"é".repeat(1000)).len(), WORD_BYTES_MAX);
    }

    #[test]
    fn a_word_without_end_is_cut_the_same_way_everywhere() {
        let long = "x".repeat(5000);
        assert!(places(&Vector::of("t", 1, &long)).contains_key(word(&long)));
        let upper = "X".repeat(5000);
        assert!(places(&Vector::of("t", 1, &upper)).contains_key(word(&long)));
    }
}
