//! A head as readers get it: shared, and with its document.

pub(crate) mod document;
#[cfg(feature = "cache")]
pub(crate) mod record;

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::Context;
use crate::session::MadeToken;

/// A context's head. Shared by all who read the same version from memory, so that it is copied for none of them and written
/// for the first one only, if it did not come written. What was written is not part of what it says: heads are equal without
/// it.
pub struct Head {
    context: Context,
    document: OnceLock<Bytes>,
    token: MadeToken,
}

impl Head {
    /// It as JSON, as clients of REST get it: as it came, or as it is written now.
    pub fn document(self: &Arc<Self>) -> Bytes {
        // What is kept is no larger than what it is accounted with.
        let write = || {
            let json = document::write(&self.context, |_, _| {});
            json.into_boxed_slice().into()
        };
        if Arc::strong_count(self) == 1 {
            // Nobody else has it: it came for this reader only, and is not kept in memory.
            return self.document.get().cloned().unwrap_or_else(write);
        }
        self.document.get_or_init(write).clone()
    }

    /// A head that came with its document.
    #[cfg(feature = "cache")]
    pub(crate) fn written(context: Context, document: Bytes) -> Self {
        Self {
            document: OnceLock::from(document),
            ..Self::from(context)
        }
    }

    /// What clients are told that have seen nothing but this head.
    pub fn token(&self) -> &MadeToken {
        &self.token
    }
}

impl From<Context> for Head {
    fn from(context: Context) -> Self {
        Self {
            context,
            document: OnceLock::new(),
            token: MadeToken::default(),
        }
    }
}

impl From<Head> for Context {
    fn from(head: Head) -> Self {
        head.context
    }
}

impl Deref for Head {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.context == other.context
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.context.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextId, NewContext, Timestamp};

    #[test]
    fn a_head_is_written_once() {
        let context = NewContext::of_agent("a").into_context(ContextId::generate(), Timestamp::default());
        let head = Arc::new(Head::from(context));
        let alone = head.document();
        assert!(head.document.get().is_none(), "for one reader only");
        let shared = Arc::clone(&head);
        let first = shared.document();
        let again = head.document();
        drop(shared);
        for bytes in [again, head.document()] {
            assert_eq!(bytes.as_ptr(), first.as_ptr());
        }
        assert_eq!(first, alone);
        assert_eq!(*head, Head::from(Context::clone(&head)));
    }
}
