//! Names of heads in the cache: history, tenant and id. Neither of the latter may hold a slash.

use crate::id::{ContextId, ContextKey, TenantId};

/// Sixteen hexadecimal digits and two slashes.
const BESIDE: usize = 16 + 2;
/// Room for most names, such as of two identifiers of 36 characters. What waits for an answer holds one.
const USUAL: usize = 96;

/// A name. Most are made without allocating: a hit needs it for its lookup only.
pub(super) struct Name {
    usual: [u8; USUAL],
    len: usize,
    /// Instead, if there is not enough room.
    long: Option<Box<str>>,
}

impl Name {
    pub(super) fn new(history: u64, key: &ContextKey) -> Self {
        let (tenant, id) = (key.tenant.as_str(), key.id.as_str());
        if BESIDE + tenant.len() + id.len() > USUAL {
            return Self::long(history, tenant, id);
        }
        let mut name = Self {
            usual: [0; USUAL],
            len: 0,
            long: None,
        };
        if history != 0 {
            let digits: [u8; 16] = std::array::from_fn(|place| {
                let nibble = (history >> (60 - 4 * place)) & 0xF;
                b"0123456789abcdef"[usize::try_from(nibble).unwrap_or(0)]
            });
            name.push(&digits);
        }
        name.push(b"/");
        name.push(tenant.as_bytes());
        name.push(b"/");
        name.push(id.as_bytes());
        name
    }

    #[cold]
    fn long(history: u64, tenant: &str, id: &str) -> Self {
        let history = if history == 0 {
            String::new()
        } else {
            format!("{history:016x}")
        };
        Self {
            usual: [0; USUAL],
            len: 0,
            long: Some(format!("{history}/{tenant}/{id}").into()),
        }
    }

    /// There is room: whoever calls this has looked.
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.usual.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    pub(super) fn as_str(&self) -> &str {
        if let Some(long) = &self.long {
            return long;
        }
        let bytes = self.usual.get(..self.len).unwrap_or_default();
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
    use crate::id::ID_BYTES_MAX;

    fn key(tenant: &str, id: &str) -> ContextKey {
        ContextKey::new(TenantId::parse(tenant).unwrap(), ContextId::parse(id).unwrap())
    }

    #[test]
    fn names_read_back_and_differ_by_history() {
        let texts = |length| "x".repeat(length);
        // Around what most names have room in.
        let around = (1..=ID_BYTES_MAX).map(|length| key("acme", &texts(length)));
        let longest = key(&texts(ID_BYTES_MAX), &texts(ID_BYTES_MAX));
        for key in around.chain([key("acme", "trip-42"), longest]) {
            for history in [0, 1, u64::MAX] {
                let name = Name::new(history, &key);
                assert_eq!(parse(name.as_str()), Some(key.clone()), "{}", name.as_str());
                let digits = name.as_str().split('/').next().unwrap();
                assert_eq!(
                    u64::from_str_radix(digits, 16).ok(),
                    (history != 0).then_some(history)
                );
            }
        }
        let usual = key(&texts(36), &texts(36));
        assert!(
            Name::new(u64::MAX, &usual).long.is_none(),
            "a hit allocates nothing"
        );
        let key = key("acme", "a");
        assert_eq!(Name::new(0, &key).as_str(), "/acme/a");
        assert_eq!(Name::new(0xAB, &key).as_str(), "00000000000000ab/acme/a");
    }
}
