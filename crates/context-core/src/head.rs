//! A head as readers get it: shared, and with what a face has written of it.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::Context;
use crate::session::MadeToken;

/// A context's head. Shared by all who read the same version from memory, so that it is copied for none of them and written
/// for the first one only. What was written is not part of what it says: heads are equal without it.
pub struct Head {
    context: Context,
    body: OnceLock<Bytes>,
    token: MadeToken,
}

impl Head {
    /// The bytes that were made before, else those that `write` makes now. There is one face that writes heads, always the
    /// same for the same head.
    pub fn get_or_write(self: &Arc<Self>, write: impl FnOnce(&Context) -> Vec<u8>) -> Bytes {
        // What is kept is no larger than what it is accounted with.
        let write = || write(&self.context).into_boxed_slice().into();
        if Arc::strong_count(self) == 1 {
            // Nobody else has it: it came for this reader only, and is not kept in memory.
            return self.body.get().cloned().unwrap_or_else(write);
        }
        self.body.get_or_init(write).clone()
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
            body: OnceLock::new(),
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
        let write = |context: &Context| context.agent_id.clone().into_bytes();
        assert!(
            head.get_or_write(write) == "a" && head.body.get().is_none(),
            "for one reader only"
        );
        let shared = Arc::clone(&head);
        let first = shared.get_or_write(write);
        let again = head.get_or_write(|_| unreachable!("it was written"));
        drop(shared);
        let alone = head.get_or_write(|_| unreachable!("it was written"));
        assert!(
            first == "a"
                && [again, alone]
                    .iter()
                    .all(|bytes| bytes.as_ptr() == first.as_ptr())
        );
        assert_eq!(*head, Head::from(Context::clone(&head)));
    }
}
