//! Words and where they stand, as Postgres keeps them: the binary form of a `tsvector`.
//!
//! Sorted and without repetition already, a vector need not be parsed by the database. The form is that of `tsvectorrecv` (`PostgreSQL`, `src/backend/utils/adt/tsvector.c`): the number of
//! words, then for each its bytes up to a zero, the number of its positions and these, ascending, as 16-bit numbers.

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

/// The words of an item, its tenant and its stream.
#[derive(Debug)]
pub(super) struct Vector(BTreeMap<String, Vec<u16>>);

impl Vector {
    /// What is found of an item with this text. What does not fit into a vector is left out, from the end.
    pub(super) fn of(tenant: &str, stream_no: i64, text: &str) -> Self {
        let mut places: BTreeMap<String, Vec<u16>> = BTreeMap::new();
        let mut bytes = 0;
        for (index, found) in words(text).enumerate() {
            let found = word(&found);
            let position =
                u16::try_from(index + 1).map_or(POSITION_MAX, |position| position.min(POSITION_MAX));
            if let Some(positions) = places.get_mut(found) {
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
            places.insert(found.to_owned(), vec![position]);
        }
        places.insert(tenant_word(tenant), Vec::new());
        places.insert(stream_word(stream_no), Vec::new());
        Self(places)
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
        out.put_i32(i32::try_from(self.0.len())?);
        for (word, positions) in &self.0 {
            out.put_slice(word.as_bytes());
            out.put_u8(0);
            out.put_u16(u16::try_from(positions.len())?);
            for position in positions {
                out.put_u16(*position);
            }
        }
        Ok(IsNull::No)
    }

    accepts!(TS_VECTOR);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_has_the_tenant_the_stream_and_the_places_of_words() {
        let Vector(places) = Vector::of("acme", 7, "To be, or not to be");
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
        let vector = Vector([("a".to_owned(), vec![1, 258]), ("bc".to_owned(), Vec::new())].into());
        vector.to_sql(&Type::TS_VECTOR, &mut out).unwrap();
        assert_eq!(&out[..], b"\0\0\0\x02a\0\0\x02\0\x01\x01\x02bc\0\0\0");
    }

    #[test]
    fn positions_ascend_also_where_postgres_tells_no_more_apart() {
        let Vector(places) = Vector::of("acme", 1, &"be ".repeat(20_000));
        assert_eq!(places["be"].len(), POSITIONS_MAX);
        let far = format!("{} to be to be", "x ".repeat(20_000));
        let Vector(places) = Vector::of("acme", 1, &far);
        assert_eq!(
            (&places["to"], &places["be"]),
            (&vec![POSITION_MAX], &vec![POSITION_MAX])
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let many: Vec<String> = (0..200_000).map(|n| format!("w{n}")).collect();
        let Vector(places) = Vector::of("acme", 1, &many.join(" "));
        let bytes: usize = places.keys().map(|word| word.len() + 6).sum();
        assert!(bytes < VECTOR_BYTES_MAX + 100, "{bytes}");
        assert!(places.contains_key("w0") && !places.contains_key("w199999"));
        assert_eq!(word(&"é".repeat(1000)).len(), WORD_BYTES_MAX);
    }

    #[test]
    fn a_word_without_end_is_cut_the_same_way_everywhere() {
        let long = "x".repeat(5000);
        assert!(Vector::of("t", 1, &long).0.contains_key(word(&long)));
    }
}
