//! Identifiers. Each is parsed once at the edge; inside, the type is the proof.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Invalid};

/// Longest identifier that a client may choose, in bytes.
pub const ID_BYTES_MAX: usize = 128;

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident: $field:literal, $allowed:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an identifier; refuses what is empty, over [`ID_BYTES_MAX`] or outside the alphabet.
            pub fn parse(text: &str) -> Result<Self, Error> {
                check($field, text, $allowed).map(|()| Self(Arc::from(text)))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )+};
}

identifiers! {
    /// Who owns data. Always taken from a credential, never from a body or a path.
    TenantId: "tenant", is_path_safe;
    /// One conversation or task of a tenant. Chosen by the client or a `UUIDv7`.
    ContextId: "id", is_path_safe;
    /// A client's own name for one item; an item is stored once per context and client id.
    ClientId: "client_id", is_printable;
    /// Names one append; a retry with the same key adds nothing.
    IdempotencyKey: "Idempotency-Key", is_printable;
}

impl ContextId {
    /// A fresh, time-ordered id (`UUIDv7`).
    pub fn generate() -> Self {
        Self(Arc::from(uuid::Uuid::now_v7().to_string().as_str()))
    }
}

/// A text that a [`ContextId`] can be made of.
#[cfg(feature = "cache")]
#[derive(Clone, Copy)]
pub(crate) struct ContextIdRef<'text>(&'text str);

#[cfg(feature = "cache")]
impl<'text> ContextIdRef<'text> {
    pub(crate) fn parse(text: &'text str) -> Option<Self> {
        check("id", text, is_path_safe).is_ok().then_some(Self(text))
    }
}

#[cfg(feature = "cache")]
impl From<ContextIdRef<'_>> for ContextId {
    fn from(id: ContextIdRef<'_>) -> Self {
        Self(Arc::from(id.0))
    }
}

/// What may stand in a URL path segment and in a file name without escaping.
fn is_path_safe(byte: u8) -> bool {
    const SAFE: [bool; 256] = {
        let mut safe = [false; 256];
        let mut byte = 0_u8;
        loop {
            safe[byte as usize] =
                byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'~' | b':' | b'@');
            if byte == u8::MAX {
                break safe;
            }
            byte += 1;
        }
    };
    SAFE[usize::from(byte)]
}

fn is_printable(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' '
}

fn check(field: &'static str, text: &str, allowed: impl Fn(u8) -> bool) -> Result<(), Error> {
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > ID_BYTES_MAX {
        format!("is {} bytes long; the limit is {ID_BYTES_MAX}", text.len())
    } else if let Some(at) = text.bytes().position(|byte| !allowed(byte)) {
        format!("has a character at byte {at} that is not allowed")
    } else if text.bytes().all(|byte| byte == b'.') {
        "is made of dots only, which a path would swallow".to_owned()
    } else {
        return Ok(());
    };
    Err(Invalid::new(field, problem)
        .hint("use 1 to 128 ASCII letters, digits and . _ - ~ : @ (no slashes or control characters)")
        .into())
}

/// A context of a tenant: the address that every store operation takes, so that no operation
/// can be written without saying whose data it means (G8).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContextKey {
    /// Whose context.
    pub tenant: TenantId,
    /// Which one.
    pub id: ContextId,
}

impl ContextKey {
    /// Puts the two halves together.
    pub fn new(tenant: TenantId, id: ContextId) -> Self {
        Self { tenant, id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_play_path_tricks_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a%2fb",
            "a\0",
            "a\nb",
            "é",
            " a",
            &"x".repeat(129),
        ] {
            assert!(ContextId::parse(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["trip-42", "a.b", "user:7@host", &"x".repeat(128)] {
            assert_eq!(ContextId::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn generated_ids_parse_and_sort_by_time() {
        let (first, second) = (ContextId::generate(), ContextId::generate());
        assert!(ContextId::parse(first.as_str()).is_ok());
        assert!(first < second);
    }
}
