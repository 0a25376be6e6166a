//! A head as readers get it: shared, and with its document.

pub(crate) mod document;
#[cfg(feature = "cache")]
pub(crate) mod record;

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::session::MadeToken;
use crate::{Context, Timestamp, Version};

/// A context's head. Shared by all who read the same version from memory, so that it is copied for none of them and written
/// for the first one only, if it did not come written. What came written is read by the first who looks at more of it than its
/// document. What was written is not part of what it says: heads are equal without it.
pub struct Head {
    version: Version,
    expires_at: Option<Timestamp>,
    said: Said,
    document: OnceLock<Bytes>,
    token: MadeToken,
}

/// What a head says. In boxes, because most that came as records are answered without it.
enum Said {
    By(Box<Context>),
    #[cfg(feature = "cache")]
    In(record::Checked, OnceLock<Box<Context>>),
}

impl Head {
    /// It as JSON, as clients of REST get it: as it came, or as it is written now.
    pub fn document(self: &Arc<Self>) -> Bytes {
        // What is kept is no larger than what it is accounted with.
        let write = || {
            let json = document::write(self, |_, _| {});
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
    fn written(
        version: Version,
        expires_at: Option<Timestamp>,
        document: Bytes,
        record: record::Checked,
    ) -> Self {
        Self {
            version,
            expires_at,
            said: Said::In(record, OnceLock::new()),
            document: OnceLock::from(document),
            token: MadeToken::default(),
        }
    }

    /// [`Context::version`], without looking at the rest.
    pub fn version(&self) -> Version {
        self.version
    }

    /// [`Context::expires_at`], without looking at the rest.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// What clients are told that have seen nothing but this head.
    pub fn token(&self) -> &MadeToken {
        &self.token
    }
}

impl From<Context> for Head {
    fn from(context: Context) -> Self {
        Self {
            version: context.version,
            expires_at: context.expires_at,
            said: Said::By(Box::new(context)),
            document: OnceLock::new(),
            token: MadeToken::default(),
        }
    }
}

impl From<Head> for Context {
    fn from(head: Head) -> Self {
        match head.said {
            Said::By(context) => *context,
            #[cfg(feature = "cache")]
            Said::In(record, read) => match read.into_inner() {
                Some(context) => *context,
                None => record.context(),
            },
        }
    }
}

impl Deref for Head {
    type Target = Context;

    fn deref(&self) -> &Context {
        match &self.said {
            Said::By(context) => context,
            #[cfg(feature = "cache")]
            Said::In(record, read) => read.get_or_init(|| Box::new(record.context())),
        }
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Context::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextId, NewContext};

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

    #[cfg(feature = "cache")]
    #[test]
    fn what_came_written_is_read_by_who_looks_at_more_than_its_document() {
        let mut context = NewContext::of_agent("a").into_context(ContextId::generate(), Timestamp::default());
        context.expires_at = Some(Timestamp::from_micros(7));
        let came = || Arc::new(record::decode(&record::encode(&context)).unwrap());
        let head = came();
        let is_read = || matches!(&head.said, Said::In(_, read) if read.get().is_some());
        let written = document::write(&context, |_, _| {});
        assert_eq!(head.document(), written);
        assert_eq!(head.version(), context.version);
        assert_eq!(head.expires_at(), context.expires_at);
        assert!(!is_read());
        assert_eq!(**head, context);
        assert!(is_read());
        for head in [head, came()] {
            assert_eq!(Context::from(Arc::into_inner(head).unwrap()), context);
        }
    }
}
