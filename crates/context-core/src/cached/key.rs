//! Names of heads in the cache: history, tenant and id. Neither of the latter may hold a slash.

use crate::id::{ContextId, ContextKey, ID_BYTES_MAX, TenantId};

/// Sixteen hexadecimal digits, two slashes, two identifiers.
const BYTES_MAX: usize = 16 + 2 + 2 * ID_BYTES_MAX;

/// A name, made without allocating: a hit needs it for its lookup only.
pub(super) struct Name {
    bytes: [u8; BYTES_MAX],
    len: usize,
}

impl Name {
    pub(super) fn new(history: u64, key: &ContextKey) -> Self {
        let mut name = Self {
            bytes: [0; BYTES_MAX],
            len: 0,
        };
        if history != 0 {
            let digits: [u8; 16] = std::array::from_fn(|place| {
                let nibble = (history >> (60 - 4 * place)) & 0xF;
                b"0123456789abcdef"[usize::try_from(nibble).unwrap_or(0)]
            });
            name.push(&digits);
        }
        name.push(b"/");
        name.push(key.tenant.as_str().as_bytes());
        name.push(b"/");
        name.push(key.id.as_str().as_bytes());
        name
    }

    /// Identifiers are bounded where they are parsed, so everything fits.
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    pub(super) fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

/// Reads a name back.
pub(super) fn parse(name: &str) -> Option<ContextKey> {
    let mut parts = name.splitn(3, '/').skip(1);
    let tenant = TenantId::parse(parts.next()?).ok()?;
    let id = ContextId::parse(parts.next()?).ok()?;
    Some(ContextKey::new(tenant, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, id: &str) -> ContextKey {
        ContextKey::new(TenantId::parse(tenant).unwrap(), ContextId::parse(id).unwrap())
    }

    #[test]
    fn names_read_back_and_differ_by_history() {
        let longest = "x".repeat(ID_BYTES_MAX);
        for key in [key("acme", "trip-42"), key(&longest, &longest)] {
            for history in [0, 1, u64::MAX] {
                let name = Name::new(history, &key);
                assert_eq!(parse(name.as_str()), Some(key.clone()), "{}", name.as_str());
            }
        }
        let key = key("acme", "a");
        assert_eq!(Name::new(0, &key).as_str(), "/acme/a");
        assert_eq!(Name::new(0xAB, &key).as_str(), "00000000000000ab/acme/a");
    }
}
