//! What is written to Redis and read back. Numbers are of fixed width and compare as text, because Lua's numbers hold
//! 53 bits only.
//!
//! An entry: format `1`, kind, whether it was logged, version (20), the server's time when it was stored in milliseconds
//! (13), then the tail. The tail: checksum of the rest (4), codec (1), length before compression (4), count of tags (2),
//! each tag's length (2), name and generation (8), then the body.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::compress;
use crate::entry::Body;
use crate::error::RemoteError;
use crate::partition::PartitionId;
use crate::remote::{Logged, Notice, Position};
use crate::version::{Key, Mark, Version};

/// Bytes before the tail.
pub(super) const HEAD: usize = 36;

/// How the body is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Value,
    /// A value whose tail lies in a key of its own.
    Apart,
    Absent,
    Marker,
}

impl Kind {
    pub(super) const fn letter(self) -> &'static str {
        match self {
            Self::Value => "v",
            Self::Apart => "b",
            Self::Absent => "a",
            Self::Marker => "m",
        }
    }
}

/// The head of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) version: Version,
    pub(super) stored_ms: u64,
}

fn corrupt(what: &str) -> RemoteError {
    RemoteError::Corrupt(what.to_owned())
}

/// Digits and nothing else. By hand: a read has four of them, and the standard library's way through UTF-8 and a check of
/// each digit's overflow was a twentieth of the instructions of a read.
fn number(text: Option<&[u8]>) -> Option<u64> {
    /// As many digits as no `u64` overflows by.
    const SAFE: usize = 19;
    let text = text?;
    if text.is_empty() {
        return None;
    }
    let (safe, rest) = text.split_at(text.len().min(SAFE));
    let mut number = 0_u64;
    let mut digits = true;
    for byte in safe {
        let digit = byte.wrapping_sub(b'0');
        digits &= digit < 10;
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    for byte in rest {
        let digit = byte.wrapping_sub(b'0');
        digits &= digit < 10;
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    digits.then_some(number)
}

pub(super) fn head(entry: &[u8]) -> Result<Head, RemoteError> {
    let parse = || {
        if entry.first() != Some(&b'1') {
            return None;
        }
        let kind = match entry.get(1)? {
            b'v' => Kind::Value,
            b'b' => Kind::Apart,
            b'a' => Kind::Absent,
            b'm' => Kind::Marker,
            _ => return None,
        };
        Some(Head {
            kind,
            version: Version::new(number(entry.get(3..23))?),
            stored_ms: number(entry.get(23..HEAD))?,
        })
    };
    parse().ok_or_else(|| corrupt("an entry of another format"))
}

pub(super) fn version(version: Version) -> String {
    format!("{:020}", version.get())
}

pub(super) fn mark(mark: Mark) -> String {
    format!("{:020}", mark.get())
}

pub(super) fn nonce(nonce: u64) -> String {
    format!("{nonce:016x}")
}

/// A body with its tags, compressed where that pays.
pub(super) fn tail(body: &Body, tags: &[(Key, u64)], settings: compress::Choice) -> Bytes {
    let Body::Value(value) = body else {
        return seal(compress::PLAIN, 0, &[], tags);
    };
    let (codec, packed) = compress::pack(value, settings);
    seal(codec, value.len(), &packed, tags)
}

fn seal(codec: u8, length: usize, body: &[u8], tags: &[(Key, u64)]) -> Bytes {
    let mut rest = BytesMut::with_capacity(body.len() + 64);
    rest.put_u32(0);
    rest.put_u8(codec);
    rest.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // Tags are at most 4096 bytes long, and nobody has 65,535 of them: what is over is cut, and then decodes as corrupt.
    rest.put_u16(u16::try_from(tags.len()).unwrap_or(u16::MAX));
    for (tag, generation) in tags {
        rest.put_u16(u16::try_from(tag.len()).unwrap_or(u16::MAX));
        rest.put_slice(tag.as_bytes());
        rest.put_u64(*generation);
    }
    rest.put_slice(body);
    let sum = crc32fast::hash(rest.get(4..).unwrap_or_default());
    if let Some(place) = rest.get_mut(..4) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    rest.freeze()
}

/// The body and the tags of a tail.
pub(super) fn untail(kind: Kind, mut tail: Bytes) -> Result<(Body, Vec<(Key, u64)>), RemoteError> {
    if kind == Kind::Marker {
        return Ok((Body::Unknown, Vec::new()));
    }
    if tail.remaining() < 11 {
        return Err(corrupt("an entry that was cut short"));
    }
    let sum = tail.get_u32();
    if crc32fast::hash(&tail) != sum {
        return Err(corrupt("an entry with a wrong checksum"));
    }
    let codec = tail.get_u8();
    let length = usize::try_from(tail.get_u32()).unwrap_or(usize::MAX);
    let tags = untag(&mut tail).ok_or_else(|| corrupt("tags that were cut short"))?;
    if kind == Kind::Absent {
        return Ok((Body::Absent, tags));
    }
    let value =
        compress::unpack(codec, tail, length).ok_or_else(|| corrupt("a body that can't be unpacked"))?;
    Ok((Body::Value(value), tags))
}

fn untag(tail: &mut Bytes) -> Option<Vec<(Key, u64)>> {
    let count = tail.try_get_u16().ok()?;
    let mut tags = Vec::new();
    for _ in 0..count {
        let length = usize::from(tail.try_get_u16().ok()?);
        if tail.remaining() < length {
            return None;
        }
        let name = tail.split_to(length);
        let name = std::str::from_utf8(&name).ok()?;
        tags.push((Key::from(name), tail.try_get_u64().ok()?));
    }
    Some(tags)
}

/// A partition's meta: sequence number, nonce and mark.
pub(super) fn meta(text: &[u8]) -> Option<(Position, Mark)> {
    Some((position(text)?, Mark::new(number(text.get(38..58))?)))
}

/// The position that stands first in a meta, and in a tag's generation.
pub(super) fn position(text: &[u8]) -> Option<Position> {
    let seq = number(text.get(..20))?;
    Some(Position {
        seq,
        nonce: nonce_of(text.get(21..37)?)?,
    })
}

/// Sixteen hexadecimal digits. Each answer brings one: neither checked as text before, nor by a general parser.
fn nonce_of(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |nonce, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        Some(nonce << 4 | u64::from(value))
    })
}

/// What is logged of a change of a key.
pub(super) fn key_notice(partition: PartitionId, of: Version, at: Mark, key: &Key) -> String {
    format!("{partition} k {} {} {key}", version(of), mark(at))
}

/// What is logged of a tag.
pub(super) fn tag_notice(partition: PartitionId, tag: &Key) -> String {
    format!("{partition} t {tag}")
}

/// A log entry: sequence number, nonce, the nonce before it, and the notice.
pub(super) fn logged(text: &[u8]) -> Option<Logged> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.splitn(6, ' ');
    let seq = words.next()?.parse().ok()?;
    let nonce = u64::from_str_radix(words.next()?, 16).ok()?;
    let before = u64::from_str_radix(words.next()?, 16).ok()?;
    let position = Position { seq, nonce };
    let partition = words.next()?.parse().ok()?;
    let notice = match words.next()? {
        "t" => Notice::Tag {
            tag: Key::from(words.next()?),
            generation: position.generation(),
        },
        "k" => {
            let mut rest = words.next()?.splitn(3, ' ');
            Notice::Key {
                version: Version::new(rest.next()?.parse().ok()?),
                mark: Mark::new(rest.next()?.parse().ok()?),
                key: Key::from(rest.next()?),
            }
        }
        _ => return None,
    };
    Some(Logged {
        partition,
        position,
        before,
        notice,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags() -> Vec<(Key, u64)> {
        vec![(Key::from("red"), 7), (Key::from("a tag with spaces"), u64::MAX)]
    }

    #[test]
    fn a_tail_comes_back_as_it_was() {
        for length in [0, 1, 1000, 100_000] {
            let body = Body::Value(vec![b'x'; length].into());
            let tail = tail(&body, &tags(), compress::Choice::default());
            assert_eq!(untail(Kind::Value, tail), Ok((body, tags())));
        }
        let absent = tail(&Body::Absent, &tags(), compress::Choice::default());
        assert_eq!(untail(Kind::Absent, absent), Ok((Body::Absent, tags())));
    }

    #[test]
    fn a_changed_byte_or_a_missing_end_is_noticed() {
        let whole = tail(&Body::Value("value".into()), &tags(), compress::Choice::default());
        for place in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[place] ^= 1;
            assert!(untail(Kind::Value, changed.into()).is_err(), "byte {place}");
            assert!(
                untail(Kind::Value, whole.slice(..place)).is_err(),
                "cut at {place}"
            );
        }
    }

    #[test]
    fn numbers_are_digits_within_64_bits() {
        let of = |text: &str| number(Some(text.as_bytes()));
        for good in [0, 7, u64::MAX / 10, u64::MAX - 1, u64::MAX] {
            assert_eq!(of(&good.to_string()), Some(good));
            assert_eq!(of(&format!("{good:020}")), Some(good));
            assert_eq!(of(&format!("{good:030}")), Some(good));
        }
        for bad in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1x",
            "0000000000000000000x",
            "18446744073709551616",
            "99999999999999999999",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(number(None), None);
    }

    #[test]
    fn metas_read_back() {
        let text = |nonce: &str| format!("{:020} {nonce} {:020}", 12, 34);
        for written in [0, 5, 0x0123_4567_89AB_CDEF, u64::MAX] {
            let told = Position {
                seq: 12,
                nonce: written,
            };
            let lower = nonce(written);
            for digits in [&lower, &lower.to_uppercase()] {
                assert_eq!(meta(text(digits).as_bytes()), Some((told, Mark::new(34))));
                assert_eq!(position(text(digits).as_bytes()), Some(told));
            }
        }
        for bad in ["000000000000000g", "+000000000000005", "000000000000 005"] {
            assert_eq!(meta(text(bad).as_bytes()), None, "{bad}");
        }
        assert_eq!(meta(text("0000000000000005").get(..57).unwrap().as_bytes()), None);
    }

    #[test]
    fn an_entry_of_another_format_is_noticed() {
        let good = format!("1v1{:020}{:013}", 42, 1_700_000_000_000_u64);
        assert_eq!(head(good.as_bytes()).unwrap().version.get(), 42);
        assert!(head(good.replacen('1', "2", 1).as_bytes()).is_err());
        assert!(head(good.get(..30).unwrap().as_bytes()).is_err() && head(b"").is_err());
    }

    #[test]
    fn log_entries_are_understood_whatever_the_key() {
        let notice = key_notice(
            3,
            Version::new(u64::MAX),
            Mark::new(9),
            &Key::from("a key: {x} y"),
        );
        let text = format!("{:020} {} {} {notice}", 12, nonce(5), nonce(u64::MAX));
        let logged = logged(text.as_bytes()).unwrap();
        assert_eq!(
            (logged.position.seq, logged.before, logged.partition),
            (12, u64::MAX, 3)
        );
        let expected = Notice::Key {
            key: Key::from("a key: {x} y"),
            version: Version::new(u64::MAX),
            mark: Mark::new(9),
        };
        assert_eq!(logged.notice, expected);
    }
}
