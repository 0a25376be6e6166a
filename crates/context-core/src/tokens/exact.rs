//! Exact counts over the vocabularies of `bpe-openai`, without an encoder for every word.
//!
//! A count is the sum over the text's pieces ([`pieces`](super::pieces)). Of a piece,
//!
//! 1. a short one is looked up in what this thread counted lately ([`Memo`]);
//! 2. else the vocabulary is asked: a piece that is in it is one token (an invariant of both vocabularies, and a test);
//! 3. else `bpe`'s encoder counts it, in time linear in its length.
//!
//! Memory: 64 KiB a thread and encoding for the memo, 1 MiB (`o200k_base`) and 512 KiB (`cl100k_base`) for the whole
//! process, all of it made by the first count that needs it. Nothing grows with what is counted.

use std::cell::RefCell;
use std::sync::LazyLock;

use bpe_openai::byte_pair_encoding::BytePairEncoding;

use super::pieces::Pattern;

/// An encoding that counts.
pub(super) struct Encoding {
    bpe: &'static BytePairEncoding,
    pattern: Pattern,
    vocabulary: Vocabulary,
}

static O200K: LazyLock<Encoding> =
    LazyLock::new(|| Encoding::new(&bpe_openai::o200k_base().bpe, Pattern::O200k));
static CL100K: LazyLock<Encoding> =
    LazyLock::new(|| Encoding::new(&bpe_openai::cl100k_base().bpe, Pattern::Cl100k));

thread_local! {
    static O200K_MEMO: RefCell<Memo> = RefCell::new(Memo::new());
    static CL100K_MEMO: RefCell<Memo> = RefCell::new(Memo::new());
}

/// Tokens of a text in `o200k_base`.
pub(super) fn count_o200k(text: &str) -> usize {
    O200K_MEMO.with_borrow_mut(|memo| O200K.count(text, memo))
}

/// Tokens of a text in `cl100k_base`.
pub(super) fn count_cl100k(text: &str) -> usize {
    CL100K_MEMO.with_borrow_mut(|memo| CL100K.count(text, memo))
}

impl Encoding {
    fn new(bpe: &'static BytePairEncoding, pattern: Pattern) -> Self {
        Self {
            bpe,
            pattern,
            vocabulary: Vocabulary::new(bpe),
        }
    }

    fn count(&self, text: &str, memo: &mut Memo) -> usize {
        let bytes = text.as_bytes();
        let (mut tokens, mut at) = (0, 0);
        while at < bytes.len() {
            let end = self.pattern.piece_end(text, at);
            tokens += match Memo::key(bytes, at, end) {
                Some(key) => memo.count(key, || self.count_piece(&bytes[at..end])),
                None => self.count_piece(&bytes[at..end]),
            };
            at = end;
        }
        tokens
    }

    #[inline(never)]
    fn count_piece(&self, piece: &[u8]) -> usize {
        if self.vocabulary.contains(self.bpe, piece) {
            1
        } else {
            self.bpe.count(piece)
        }
    }
}

/// Counts of short pieces, each in the one place that its hash says; a later piece takes the place of an earlier one.
///
/// An entry is the piece itself, so that no two pieces are ever mistaken for each other: its bytes in the lower 120
/// bits, its length in the next 4, its count in the upper 4. A piece has at most as many tokens as bytes, so 15 fits.
struct Memo(Box<[u128; Self::ENTRIES]>);

impl Memo {
    const ENTRIES: usize = 1 << 12;
    const BYTES_MAX: usize = 15;
    const LEN_SHIFT: u32 = 120;
    const COUNT_SHIFT: u32 = 124;

    fn new() -> Self {
        // No piece has the key 0: its length is at least 1.
        let entries = vec![0; Self::ENTRIES].into_boxed_slice();
        Self(entries.try_into().expect("invariant: made with this length"))
    }

    /// A piece and its length; `None` for one too long to be kept.
    #[inline]
    fn key(bytes: &[u8], at: usize, end: usize) -> Option<u128> {
        let len = end - at;
        if len > Self::BYTES_MAX {
            return None;
        }
        let raw = if let Some(Ok(wide)) = bytes.get(at..at + 16).map(<[u8; 16]>::try_from) {
            u128::from_le_bytes(wide) & ((1 << (8 * len)) - 1)
        } else {
            let mut wide = [0; 16];
            wide[..len].copy_from_slice(&bytes[at..end]);
            u128::from_le_bytes(wide)
        };
        Some(raw | (len as u128) << Self::LEN_SHIFT)
    }

    #[inline]
    fn count(&mut self, key: u128, count: impl FnOnce() -> usize) -> usize {
        let entry = &mut self.0[Self::place(key)];
        if *entry & !(0xf << Self::COUNT_SHIFT) == key {
            return (*entry >> Self::COUNT_SHIFT) as usize;
        }
        let tokens = count();
        *entry = key | (tokens as u128) << Self::COUNT_SHIFT;
        tokens
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the key")]
    fn place(key: u128) -> usize {
        let mixed = mix(key as u64 ^ mix((key >> 64) as u64));
        (mixed >> (u64::BITS - Self::ENTRIES.ilog2())) as usize
    }
}

/// Which byte strings are tokens: open addressing with linear probing, a slot 14 bits of the hash and the token's
/// number from 1. What the slot says is compared with the token's bytes. What is looked up changes nothing, so nobody
/// can lengthen the probing.
struct Vocabulary {
    slots: Box<[u32]>,
    longest: usize,
}

impl Vocabulary {
    const NUMBER_BITS: u32 = 18;

    fn new(bpe: &BytePairEncoding) -> Self {
        let count = bpe.num_tokens();
        assert!(
            count < 1 << Self::NUMBER_BITS,
            "invariant: a token's number fits a slot"
        );
        let mut vocabulary = Self {
            slots: vec![0; (count * 5 / 4).next_power_of_two()].into_boxed_slice(),
            longest: 0,
        };
        for (token, number) in (0..count).zip(1..) {
            #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
            let bytes = bpe.token_bytes(token as u32);
            vocabulary.longest = vocabulary.longest.max(bytes.len());
            let (mut place, print) = vocabulary.probe(bytes);
            while vocabulary.slots[place] != 0 {
                place = vocabulary.after(place);
            }
            vocabulary.slots[place] = print | number;
        }
        vocabulary
    }

    fn contains(&self, bpe: &BytePairEncoding, piece: &[u8]) -> bool {
        const NUMBER: u32 = (1 << Vocabulary::NUMBER_BITS) - 1;
        if piece.len() > self.longest {
            return false;
        }
        let (mut place, print) = self.probe(piece);
        loop {
            let slot = self.slots[place];
            if slot == 0 {
                return false;
            }
            if slot & !NUMBER == print && bpe.token_bytes((slot & NUMBER) - 1) == piece {
                return true;
            }
            place = self.after(place);
        }
    }

    /// The first place to look and the bits of the hash to look for.
    #[expect(clippy::cast_possible_truncation, reason = "halves of a hash")]
    fn probe(&self, bytes: &[u8]) -> (usize, u32) {
        let hash = hash(bytes);
        let place = hash >> (u64::BITS - self.slots.len().ilog2());
        (place as usize, (hash as u32) << Self::NUMBER_BITS)
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.slots.len() - 1)
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = bytes.len() as u64;
    for word in words {
        hash = mix(hash ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash ^ u64::from_le_bytes(last))
}

/// A multiplication whose upper half comes back into the lower.
/// Source of the constant: the golden ratio, as in Fibonacci hashing.
#[inline]
fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value ^ (value >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second step of a count depends on it.
    #[test]
    fn every_token_is_found_and_is_one_token() {
        for encoding in [&*O200K, &*CL100K] {
            assert!(encoding.bpe.num_tokens() > 100_000);
            for token in (0..).take(encoding.bpe.num_tokens()) {
                let bytes = encoding.bpe.token_bytes(token);
                assert!(encoding.vocabulary.contains(encoding.bpe, bytes), "{token}");
                assert_eq!(encoding.bpe.count(bytes), 1, "{token}");
                let mut more = bytes.to_vec();
                more.push(0xff);
                assert!(!encoding.vocabulary.contains(encoding.bpe, &more), "{token}");
            }
        }
    }

    #[test]
    fn pieces_that_share_a_place_keep_their_own_counts() {
        let mut memo = Memo::new();
        let keys: Vec<u128> = (0..20_000_u32)
            .filter_map(|n| {
                let bytes = n.to_string().into_bytes();
                Memo::key(&bytes, 0, bytes.len())
            })
            .collect();
        for _ in 0..2 {
            for (tokens, key) in (1..=15).cycle().zip(&keys) {
                assert_eq!(memo.count(*key, || tokens), tokens);
                assert_eq!(memo.count(*key, || unreachable!()), tokens);
            }
        }
    }

    #[test]
    fn keys_hold_the_piece_and_nothing_around_it() {
        let text = b"abcdefghijklmnopqrstuvwxyz";
        for len in 1..=Memo::BYTES_MAX {
            let inside = Memo::key(text, 3, 3 + len);
            assert_eq!(inside, Memo::key(&text[3..3 + len], 0, len));
            assert_ne!(inside, Memo::key(text, 3, 4 + len));
        }
        assert_eq!(Memo::key(text, 3, 19), None);
        assert_ne!(Memo::key(b"a", 0, 1), Memo::key(b"a\0", 0, 2));
    }
}
