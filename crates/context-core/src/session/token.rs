//! Tokens: small, opaque to clients, understood by every node.
//!
//! The text is base64url over: a format byte, a byte of flags, the position (epoch and LSN, if there is one), and for
//! each context eight bytes of a hash of its key and its version. Two contexts of one hash share the higher floor, which
//! costs a hop to the primary and nothing else. A client that forges a token asks more of its own reads; it cannot see
//! anything by it.

use std::sync::OnceLock;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{Engine as _, encoded_len};
use bytes::{BufMut as _, Bytes};
use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

use crate::Version;
use crate::error::{Invalid, Result};
use crate::id::{ContextKey, ID_BYTES_MAX};

/// Contexts whose versions a token holds; the ones seen longest ago go first.
const CONTEXTS_MAX: usize = 32;
const FORMAT: u8 = 2;
const HAS_POSITION: u8 = 1;
const OVERFLOWED: u8 = 2;
/// Most bytes of a token, before they are made text.
const BYTES_MAX: usize = 2 + 24 + 16 * CONTEXTS_MAX;
/// Longest text that is looked at.
const TEXT_BYTES_MAX: usize = 1024;

/// Which log a position belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The database cluster.
    pub system: u64,
    /// One more with each promotion.
    pub timeline: u32,
}

/// What a client has seen; see the [module](super) for what it promises.
#[derive(Clone, Debug, Default)]
pub struct Token {
    position: Option<(Epoch, u64)>,
    /// Most requests see one.
    seen: SmallVec<[Seen; 1]>,
    /// Of the context that was seen last.
    turn: u64,
    /// Some context's version had no room.
    overflowed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    context: Name,
    version: Version,
    /// Higher than those of all that were seen before. They are put in order when the text is written, and not each time
    /// that one is seen.
    turn: u64,
}

/// Where a context is in a token, until something else is seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

/// The text of one token that names one context and nothing else. Kept beside what is answered about that context: most
/// who ask for it have seen nothing but it, and all of them are told the same.
#[derive(Debug, Default)]
pub struct MadeToken(OnceLock<Option<((Name, Version), Bytes)>>);

impl Token {
    /// Reads a token back.
    ///
    /// # Errors
    /// `Invalid` on the field `Contextkeep-Token`.
    pub fn parse(text: &str) -> Result<Self> {
        let bytes = if text.len() <= TEXT_BYTES_MAX {
            URL_SAFE_NO_PAD.decode(text).ok()
        } else {
            None
        };
        Ok(bytes.and_then(|bytes| Self::decode(&bytes)).ok_or_else(|| {
            Invalid::new("Contextkeep-Token", "is not a token of ours")
                .hint("send the header of an earlier answer as it was, or leave it out")
        })?)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[format, flags], mut rest) = bytes.split_first_chunk::<2>()?;
        if format != FORMAT || flags & !(HAS_POSITION | OVERFLOWED) != 0 {
            return None;
        }
        let mut token = Self {
            overflowed: flags & OVERFLOWED != 0,
            ..Self::default()
        };
        if flags & HAS_POSITION != 0 {
            let epoch = Epoch {
                system: take_u64(&mut rest)?,
                timeline: u32::try_from(take_u64(&mut rest)?).ok()?,
            };
            token.position = Some((epoch, take_u64(&mut rest)?));
        }
        if !rest.len().is_multiple_of(16) || rest.len() / 16 > CONTEXTS_MAX {
            return None;
        }
        token.seen.reserve_exact(rest.len() / 16);
        while !rest.is_empty() {
            token.add(Name(take_u64(&mut rest)?), take_u64(&mut rest)?);
        }
        Some(token)
    }

    /// The text for a header; `None` if nothing was seen.
    pub fn encode(&self) -> Option<String> {
        String::from_utf8(self.text()?).ok()
    }

    /// As [`Token::encode`], in the one place in memory that a header's value keeps.
    fn text(&self) -> Option<Vec<u8>> {
        if self.is_empty() {
            return None;
        }
        let mut flags = 0;
        flags |= if self.position.is_some() { HAS_POSITION } else { 0 };
        flags |= if self.overflowed { OVERFLOWED } else { 0 };
        let mut room = [0; BYTES_MAX];
        let mut to = &mut room[..];
        to.put_slice(&[FORMAT, flags]);
        if let Some((epoch, lsn)) = self.position {
            for number in [epoch.system, u64::from(epoch.timeline), lsn] {
                to.put_u64_le(number);
            }
        }
        let mut add = |(Name(context), version): (Name, Version)| {
            to.put_u64_le(context);
            to.put_u64_le(version);
        };
        match self.seen.as_slice() {
            [only] => add((only.context, only.version)),
            _ => self.in_order().for_each(add),
        }
        let length = BYTES_MAX - to.remaining_mut();
        let mut text = vec![0; encoded_len(length, false)?];
        URL_SAFE_NO_PAD
            .encode_slice(room.get(..length)?, &mut text)
            .ok()?;
        Some(text)
    }

    /// As [`Token::encode`].
    pub(super) fn encode_bytes(&self) -> Option<Bytes> {
        self.text().map(Bytes::from)
    }

    /// The one seen last at the end.
    fn in_order(&self) -> impl Iterator<Item = (Name, Version)> {
        let mut seen = self.seen.clone();
        seen.sort_unstable_by_key(|seen| seen.turn);
        seen.into_iter().map(|seen| (seen.context, seen.version))
    }

    /// The version that an answer about a context must have at least.
    pub fn floor(&self, key: &ContextKey) -> Option<Version> {
        if self.seen.is_empty() {
            return None;
        }
        self.place(Name::of(key)).and_then(|place| self.floor_at(place))
    }

    /// Where this context is, if its version is known.
    #[inline]
    pub(super) fn place(&self, context: Name) -> Option<Place> {
        self.seen
            .iter()
            .position(|seen| seen.context == context)
            .map(Place)
    }

    /// As [`Token::floor`], by the context's place.
    #[inline]
    pub(super) fn floor_at(&self, place: Place) -> Option<Version> {
        self.seen.get(place.0).map(|seen| seen.version)
    }

    /// Whether the client may have seen contexts that the token does not name (Q3).
    pub fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// The one context that was seen, if there is nothing else in it.
    fn only(&self) -> Option<(Name, Version)> {
        match self.seen.as_slice() {
            [only] if self.position.is_none() && !self.overflowed => Some((only.context, only.version)),
            _ => None,
        }
    }

    /// As [`Token::encode`], from `made` if this token was made before.
    pub(super) fn encode_or(&self, made: &MadeToken) -> Option<Bytes> {
        let made = self.only().map(|only| {
            let encode = || Some((only, self.encode_bytes()?));
            made.0.get_or_init(encode).as_ref().filter(|made| made.0 == only)
        });
        match made {
            Some(Some((_, text))) => Some(text.clone()),
            _ => self.encode_bytes(),
        }
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.position.is_none() && !self.overflowed
    }

    /// The position that lists and searches must have reached.
    pub fn position(&self) -> Option<(Epoch, u64)> {
        self.position
    }

    pub(super) fn saw(&mut self, key: &ContextKey, version: Version) {
        let context = Name::of(key);
        self.saw_at(self.place(context), context, version);
    }

    /// As [`Token::saw`], by the context's name and its present place.
    #[inline]
    pub(super) fn saw_at(&mut self, place: Option<Place>, context: Name, version: Version) {
        match place.and_then(|place| self.seen.get_mut(place.0)) {
            Some(seen) => {
                self.turn += 1;
                seen.turn = self.turn;
                seen.version = seen.version.max(version);
            }
            None => self.add(context, version),
        }
    }

    pub(super) fn overflow(&mut self) {
        self.overflowed = true;
    }

    fn add(&mut self, context: Name, version: Version) {
        if self.seen.len() == CONTEXTS_MAX {
            let oldest = self.seen.iter().enumerate().min_by_key(|(_, seen)| seen.turn);
            if let Some((place, _)) = oldest {
                self.seen.swap_remove(place);
            }
            self.overflowed = true;
        }
        self.turn += 1;
        self.seen.push(Seen {
            context,
            version,
            turn: self.turn,
        });
    }

    pub(super) fn saw_position(&mut self, epoch: Epoch, lsn: u64) {
        self.position = Some(match self.position {
            Some((seen, position)) if seen == epoch => (epoch, position.max(lsn)),
            // Whoever answers now is of the epoch that counts now.
            Some((seen, position)) if seen.system == epoch.system && seen.timeline > epoch.timeline => {
                (seen, position)
            }
            _ => (epoch, lsn),
        });
    }

    pub(super) fn raise(&mut self, other: &Self) {
        for (context, version) in other.in_order() {
            self.saw_at(self.place(context), context, version);
        }
        self.raise_beside(other);
    }

    /// As [`Token::raise`], of the contexts that this names already (Q5).
    pub(super) fn raise_known(&mut self, other: &Self) {
        for (context, version) in other.in_order() {
            if let Some(place) = self.place(context) {
                self.saw_at(Some(place), context, version);
            }
        }
        self.raise_beside(other);
    }

    fn raise_beside(&mut self, other: &Self) {
        self.overflowed |= other.overflowed;
        if let Some((epoch, lsn)) = other.position {
            self.saw_position(epoch, lsn);
        }
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        (self.position, self.overflowed, self.seen.len())
            == (other.position, other.overflowed, other.seen.len())
            && self.in_order().eq(other.in_order())
    }
}

impl Eq for Token {}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

/// What a token calls a context. The same on every node: `SipHash-1-3` of both halves of the key, with no secret. Whoever
/// finds two ids that collide makes his own reads take a hop more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name(u64);

impl Name {
    pub(crate) fn of(key: &ContextKey) -> Self {
        let (tenant, id) = (key.tenant.as_str(), key.id.as_str());
        // In one piece: of several, the hasher spends most of its time on what is left over of each.
        let mut room = [0; 2 * ID_BYTES_MAX + 1];
        let mut to = &mut room[..];
        for part in [tenant.as_bytes(), &[0], id.as_bytes()] {
            to.put_slice(part);
        }
        let length = tenant.len() + 1 + id.len();
        Self(SipHasher13::new().hash(room.get(..length).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ContextId, TenantId};

    fn key(n: u32) -> ContextKey {
        ContextKey::new(
            TenantId::parse("acme").unwrap(),
            ContextId::parse(&format!("c{n}")).unwrap(),
        )
    }

    const EPOCH: Epoch = Epoch {
        system: 7,
        timeline: 1,
    };

    proptest! {
        #[test]
        fn a_token_comes_back_and_never_falls(seen in prop::collection::vec((0u32..100, 1u64..50), 0..200)) {
            let mut token = Token::default();
            for (index, (context, version)) in seen.iter().enumerate() {
                token.saw(&key(*context), *version);
                token.saw_position(EPOCH, index as u64);
                // Seen just now, so it has room.
                prop_assert!(token.floor(&key(*context)) >= Some(*version));
            }
            for (context, version) in &seen {
                prop_assert!(token.floor(&key(*context)) >= Some(*version) || token.has_overflowed());
            }
            if let Some(text) = token.encode() {
                prop_assert!(text.len() <= TEXT_BYTES_MAX);
                prop_assert_eq!(Token::parse(&text).unwrap(), token);
            }
        }

        #[test]
        fn what_is_no_token_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            if let Ok(token) = Token::parse(&URL_SAFE_NO_PAD.encode(&bytes)) {
                prop_assert!(token.encode().is_none_or(|text| text == URL_SAFE_NO_PAD.encode(&bytes)));
            }
        }
    }

    // Clients bring tokens from servers of other releases.
    #[test]
    fn a_name_is_the_hash_of_both_halves() {
        use std::hash::Hasher as _;
        let longest = "x".repeat(ID_BYTES_MAX);
        for (tenant, id) in [("a", "b"), ("acme", "0197e2a4-7c11"), (&*longest, &*longest)] {
            let key = ContextKey::new(TenantId::parse(tenant).unwrap(), ContextId::parse(id).unwrap());
            let mut hash = SipHasher13::new();
            for part in [tenant.as_bytes(), &[0], id.as_bytes()] {
                hash.write(part);
            }
            assert_eq!(Name::of(&key), Name(hash.finish()));
        }
        assert_eq!(Name::of(&key(1)), Name(0x2e37_4dcb_4468_7cbe));
    }

    #[test]
    fn a_token_that_was_made_is_given_to_those_who_have_seen_the_same() {
        let made = MadeToken::default();
        let told = |token: &Token| {
            let text = token.encode_or(&made);
            assert_eq!(text.as_deref(), token.encode().as_ref().map(String::as_bytes));
            text
        };
        let mut token = Token::default();
        assert_eq!(told(&token), None);
        token.saw(&key(1), 7);
        let (first, again) = (told(&token).unwrap(), told(&token).unwrap());
        assert_eq!(first.as_ptr(), again.as_ptr());
        // Another context, another version, more than one, a position: as if nothing had been made.
        let mut other = Token::default();
        other.saw(&key(2), 7);
        told(&other);
        let mut placed = token.clone();
        placed.saw_position(EPOCH, 3);
        told(&placed);
        let mut forgetful = token.clone();
        forgetful.overflow();
        told(&forgetful);
        token.saw(&key(1), 8);
        told(&token);
        token.saw(&key(2), 1);
        told(&token);
    }

    #[test]
    fn a_later_timeline_replaces_the_position_and_an_earlier_one_does_not() {
        let mut token = Token::default();
        token.saw_position(EPOCH, 100);
        let promoted = Epoch { timeline: 2, ..EPOCH };
        token.saw_position(promoted, 90);
        assert_eq!(token.position(), Some((promoted, 90)));
        token.saw_position(EPOCH, 200);
        assert_eq!(token.position(), Some((promoted, 90)));
    }
}
