//! Cursors: opaque to clients, checked when they come back.
//!
//! A cursor says where a page ended and which question it belongs to. It carries no rights: whatever it
//! says, the tenant is the credential's, so a forged one can only ask for another page of the forger's data.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contextkeep_core::store::ListPosition;
use contextkeep_core::{Context, ContextId, Error, Invalid, Result, Seq, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest cursor that is looked at, in bytes.
const BYTES_MAX: usize = 512;

/// Furthest that pages of hits go: each page ranks anew what it skips.
pub const SEARCH_OFFSET_MAX: u32 = 1000;

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a list of contexts.
    List(ListPosition),
    /// In the items of a context.
    Items(Seq),
    /// In the hits of a search.
    Search(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    /// Fingerprint of the question.
    q: u32,
    #[serde(flatten)]
    place: WirePlace,
}

#[derive(Serialize, Deserialize)]
enum WirePlace {
    #[serde(rename = "l")]
    List(i64, String),
    #[serde(rename = "i")]
    Items(Seq),
    #[serde(rename = "s")]
    Search(u32),
}

/// Makes a cursor. `question` is everything that must not change between two pages.
///
/// # Panics
/// Never: numbers and an id always serialise.
pub fn encode(place: &Place, question: &[&str]) -> String {
    let place = match place {
        Place::List(at) => WirePlace::List(at.created_at.as_micros(), at.id.to_string()),
        Place::Items(seq) => WirePlace::Items(*seq),
        Place::Search(offset) => WirePlace::Search(*offset),
    };
    let wire = Wire {
        q: fingerprint(question),
        place,
    };
    let json = serde_json::to_vec(&wire).expect("invariant: numbers and an id always serialise");
    URL_SAFE_NO_PAD.encode(json)
}

/// Reads a cursor back.
///
/// # Errors
/// `Invalid` on the field `cursor` if it was not made here or belongs to another question.
pub fn decode(cursor: &str, question: &[&str]) -> Result<Place> {
    let wire = Some(cursor)
        .filter(|cursor| cursor.len() <= BYTES_MAX)
        .and_then(|cursor| URL_SAFE_NO_PAD.decode(cursor).ok())
        .and_then(|json| serde_json::from_slice::<Wire>(&json).ok())
        .ok_or_else(|| invalid("is not one that this server made"))?;
    if wire.q != fingerprint(question) {
        return Err(invalid("belongs to a request with other parameters"));
    }
    Ok(match wire.place {
        WirePlace::List(micros, id) => {
            let id = ContextId::parse(&id).map_err(|_| invalid("is not one that this server made"))?;
            Place::List(ListPosition {
                created_at: Timestamp::from_micros(micros),
                id,
            })
        }
        WirePlace::Items(seq) => Place::Items(seq),
        WirePlace::Search(offset) => Place::Search(offset),
    })
}

/// The place after a context in a list.
pub fn after_context(context: &Context, question: &[&str]) -> String {
    let at = ListPosition {
        created_at: context.created_at,
        id: context.id.clone(),
    };
    encode(&Place::List(at), question)
}

/// Reads [`after_context`] back.
///
/// # Errors
/// As [`decode`].
pub fn list_position(cursor: &str, question: &[&str]) -> Result<ListPosition> {
    match decode(cursor, question)? {
        Place::List(at) => Ok(at),
        _ => Err(invalid("is not one of a list")),
    }
}

/// The place after so many hits, if pages go that far.
pub fn after_hits(offset: u32, question: &[&str]) -> Option<String> {
    (offset <= SEARCH_OFFSET_MAX).then(|| encode(&Place::Search(offset), question))
}

/// Reads [`after_hits`] back.
///
/// # Errors
/// As [`decode`].
pub fn search_offset(cursor: &str, question: &[&str]) -> Result<u32> {
    match decode(cursor, question)? {
        Place::Search(offset) if offset <= SEARCH_OFFSET_MAX => Ok(offset),
        _ => Err(invalid("is not one of a search")),
    }
}

fn invalid(problem: &str) -> Error {
    Invalid::new("cursor", problem)
        .hint("send next_cursor of the page before with the same parameters, or leave it out to start again")
        .into()
}

fn fingerprint(question: &[&str]) -> u32 {
    let mut hash = Sha256::new();
    for part in question {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_for_the_same_question_only() {
        let places = [
            Place::Items(7),
            Place::Search(20),
            Place::List(ListPosition {
                created_at: Timestamp::from_micros(5),
                id: ContextId::parse("a").unwrap(),
            }),
        ];
        for place in places {
            let cursor = encode(&place, &["items", "a"]);
            assert_eq!(decode(&cursor, &["items", "a"]).unwrap(), place);
            assert!(decode(&cursor, &["items", "b"]).is_err());
        }
    }

    #[test]
    fn forged_cursors_are_refused() {
        let forged = URL_SAFE_NO_PAD.encode(r#"{"q":0,"l":[1,"../../etc"]}"#);
        for bad in [
            "",
            "x",
            "!!!!",
            &forged,
            &"A".repeat(10_000),
            &URL_SAFE_NO_PAD.encode("{}"),
        ] {
            assert!(decode(bad, &[]).is_err(), "{bad}");
        }
    }
}
