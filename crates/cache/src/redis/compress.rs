//! Compression of bodies: by size, and only where it pays.

use bytes::Bytes;

/// A body as it is.
pub(super) const PLAIN: u8 = 0;
#[cfg(feature = "compression")]
const LZ4: u8 = 1;
#[cfg(feature = "compression")]
const ZSTD: u8 = 2;

/// From which sizes on to compress by what; `usize::MAX` is never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) lz4_from: usize,
    pub(super) zstd_from: usize,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            lz4_from: 4 << 10,
            zstd_from: 64 << 10,
        }
    }
}

/// The codec and what it made of a body. What does not shrink by a tenth stays as it is.
#[cfg(feature = "compression")]
pub(super) fn pack(body: &Bytes, choice: Choice) -> (u8, Bytes) {
    let packed = if body.len() >= choice.zstd_from {
        zstd::bulk::compress(body, 3).ok().map(|packed| (ZSTD, packed))
    } else if body.len() >= choice.lz4_from {
        Some((LZ4, lz4_flex::block::compress(body)))
    } else {
        None
    };
    match packed {
        Some((codec, packed)) if packed.len() <= body.len() / 10 * 9 => (codec, packed.into()),
        _ => (PLAIN, body.clone()),
    }
}

/// A body again; `None` if it is not what was packed. Never makes more than `length` bytes.
#[cfg(feature = "compression")]
pub(super) fn unpack(codec: u8, body: Bytes, length: usize) -> Option<Bytes> {
    let whole = match codec {
        PLAIN => body,
        LZ4 if length <= LARGEST => lz4_flex::block::decompress(&body, length).ok()?.into(),
        ZSTD if length <= LARGEST => zstd::bulk::decompress(&body, length).ok()?.into(),
        _ => return None,
    };
    (whole.len() == length).then_some(whole)
}

/// No length that somebody wrote makes this process reserve more.
#[cfg(feature = "compression")]
const LARGEST: usize = 512 << 20;

#[cfg(not(feature = "compression"))]
pub(super) fn pack(body: &Bytes, _: Choice) -> (u8, Bytes) {
    (PLAIN, body.clone())
}

#[cfg(not(feature = "compression"))]
pub(super) fn unpack(codec: u8, body: Bytes, length: usize) -> Option<Bytes> {
    (codec == PLAIN && body.len() == length).then_some(body)
}

#[cfg(test)]
#[cfg(feature = "compression")]
mod tests {
    use super::*;

    #[test]
    fn the_codec_goes_by_size_and_by_gain() {
        let choice = Choice::default();
        let text = |length: usize| Bytes::from(b"all work and no play ".repeat(length / 21 + 1));
        assert_eq!(pack(&text(1000), choice).0, PLAIN);
        assert_eq!(pack(&text(10_000), choice).0, LZ4);
        assert_eq!(pack(&text(100_000), choice).0, ZSTD);
        let random = crate::random::Random::seeded(1);
        let noise: Bytes = (0..20_000).flat_map(|_| random.bits().to_be_bytes()).collect();
        assert_eq!(pack(&noise, choice).0, PLAIN, "it would not pay");
        for body in [text(10_000), text(100_000)] {
            let (codec, packed) = pack(&body, choice);
            assert!(packed.len() < body.len() / 2);
            assert_eq!(unpack(codec, packed.clone(), body.len()).unwrap(), body);
            assert!(unpack(codec, packed, usize::MAX).is_none());
        }
    }
}
