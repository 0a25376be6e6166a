//! Windows that are kept ready, for whoever asks alike.
//!
//! They are kept with the end of their context, and with them the head that they belong to, as its cache gave it. As long as
//! that is still what the cache would give, which it says without a lookup, a window costs one lookup. Everything else
//! goes by the head: another head, one that a lookup would not give to this session, and one in so many, so that the cache
//! of heads learns which are used.

use std::sync::Arc;

use super::tails::Standing;
use super::{CachedStore, Inner, floor_for, note};
use crate::id::ContextKey;
use crate::manager::{Answer, Origin};
use crate::session::{AtOnce, Session};
use crate::window::{Window, WindowRequest};

impl CachedStore {
    /// A window that was made before and is still the one. The session knows then that it was seen (Q1).
    pub(crate) fn window_ready(
        &self,
        key: &ContextKey,
        request: &WindowRequest,
    ) -> Option<Answer<Arc<Window>>> {
        let window = self.0.recalled(key, request).or_else(|| {
            let window = self.0.by_head(key, request)?;
            Session::with_current(|session| session.saw(key, window.version));
            Some(window)
        })?;
        Some(Answer {
            value: window,
            origin: Origin::L1,
        })
    }

    /// Keeps a window ready for the next who asks alike.
    pub(crate) fn keep_window(&self, key: &ContextKey, request: WindowRequest, window: &Arc<Window>) {
        if let Some(tails) = &self.0.tails {
            tails.keep_answer(key, request, window);
        }
    }
}

impl Inner {
    /// One lookup.
    fn recalled(&self, key: &ContextKey, request: &WindowRequest) -> Option<Arc<Window>> {
        let tails = self.tails.as_ref()?;
        let history = self.history();
        let answer = |session: &Session| {
            if !session.plan().l1 {
                return None;
            }
            tails.held(history, key, |held, name| {
                // K5
                if held.context().expires_at.is_some_and(|at| at <= self.clock.now()) {
                    return None;
                }
                let (head, window) = held.recall(request)?;
                session.answer_at_once(name, |seen| {
                    // K1
                    let read = self
                        .read()
                        .floor(floor_for(session.consistency(), || seen)?.into());
                    Some(AtOnce {
                        age: self.heads.cache().recall(head, &read)?,
                        version: window.version,
                        origin: Origin::L1,
                        value: Arc::clone(window),
                    })
                })
            })
        };
        Session::with_current(answer).flatten()
    }

    /// Two lookups, after which one will do.
    fn by_head(&self, key: &ContextKey, request: &WindowRequest) -> Option<Arc<Window>> {
        let read = self.reading(key)?;
        let found = self.heads.hit(key, &read)?;
        let head = self.there(&found).ok()?;
        let standing = self.tails()?.with(self.history(), key, &head, |held| {
            let window = held.answer(request).cloned()?;
            held.belongs_to(found.kept.as_ref());
            Some(window)
        });
        let Standing::Current(window) = standing else {
            return None;
        };
        note(&found, Origin::L1);
        Some(window)
    }
}
