//! Windows that are kept ready, for whoever asks alike.
//!
//! - **D1** Each is kept with the head that it was made for, as its cache gave it, and given only while that is still what
//!   the cache would give to this session (K1). The cache says so without a lookup, so that a window costs one lookup
//!   and no lock but the session's. Whoever changes a head so takes its windows away.
//! - **D2** Where the cache has another entry for the same head, as after a refresh, the windows are kept on with that one.
//! - **D3** What is given has its head and its end looked up now and then, so that those who decide what to evict know that
//!   they are in use.
//! - **D4** A window belongs to the history of the store that it was read in (H3).

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use contextkeep_cache::{Kept, Read};
use quick_cache::Equivalent;

use super::bounded::{Bounded, Weigh, bounded};
use super::held::size;
use super::{CachedStore, Inner, floor_for, note};
use crate::id::ContextKey;
use crate::manager::{Answer, Origin};
use crate::session::{AtOnce, Name, Session};
use crate::window::{Window, WindowRequest};
use crate::{Context, Timestamp, Version};

/// Room of a window beside its items.
const OVERHEAD: u64 = 512;

impl CachedStore {
    /// A window that was made before and is still the one. The session knows then that it was seen (Q1).
    pub(crate) fn window_ready(
        &self,
        key: &ContextKey,
        request: &WindowRequest,
    ) -> Option<Answer<Arc<Window>>> {
        let inner = &*self.0;
        let ready = inner.ready.as_ref()?;
        let asked = Asking { key, request };
        let value = inner
            .recalled(ready, &asked)
            .or_else(|| inner.by_head(ready, &asked))?;
        Some(Answer {
            value,
            origin: Origin::L1,
        })
    }

    /// Keeps a window ready for the next who asks alike, if this session may read from memory and the head that it was made for
    /// is there.
    pub(crate) fn keep_window(&self, key: &ContextKey, request: WindowRequest, window: &Arc<Window>) {
        let inner = &*self.0;
        let Some(ready) = &inner.ready else { return };
        let read = inner.reading(key).filter(|_| Session::current_plan().l1);
        let Some(found) = read.and_then(|read| inner.heads.hit(key, &read)) else {
            return;
        };
        if let (Some(head), Some(kept)) = (found.value, found.kept)
            && head.version == window.version
        {
            let asked = Asked {
                key: key.clone(),
                request,
            };
            let slot = Slot::new(key, &head, inner.history(), kept, Arc::clone(window));
            ready.windows.insert(asked, slot);
        }
    }
}

impl Inner {
    /// D1. One lookup.
    fn recalled(&self, ready: &Ready, asked: &Asking<'_>) -> Option<Arc<Window>> {
        let mut look_up = false;
        let answer = |session: &Session| {
            if !session.plan().l1 {
                return None;
            }
            let slot = ready.windows.get(asked)?;
            if slot.history != self.history() || slot.is_expired(self) {
                return None;
            }
            session.answer_at_once(slot.name, |seen| {
                let floor = floor_for(session.consistency(), || seen)?;
                let heads = self.heads.cache();
                let recalled = heads.recall(&slot.head, floor.into(), heads.present())?;
                look_up = recalled.look_up;
                Some(AtOnce {
                    age: recalled.age,
                    version: slot.version,
                    origin: Origin::L1,
                    value: slot.window,
                })
            })
        };
        let window = Session::with_current(answer).flatten();
        if look_up {
            self.use_parts(asked.key);
        }
        window
    }

    /// D3.
    #[cold]
    fn use_parts(&self, key: &ContextKey) {
        self.heads.hit(key, &Read::new());
        if let Some(tails) = &self.tails {
            tails.touch(key);
        }
    }

    /// D2.
    fn by_head(&self, ready: &Ready, asked: &Asking<'_>) -> Option<Arc<Window>> {
        let read = self.reading(asked.key).filter(|_| Session::current_plan().l1)?;
        let slot = ready.windows.get(asked)?;
        let found = self.heads.hit(asked.key, &read)?;
        let head = self.there(&found).ok()?;
        if !slot.is_of(&head, self.history()) {
            return None;
        }
        Session::with_current(|session| session.saw(asked.key, head.version));
        note(&found, Origin::L1);
        let window = Arc::clone(&slot.window);
        if let Some(head) = found.kept {
            ready.windows.insert(asked.owned(), Slot { head, ..slot });
        }
        Some(window)
    }
}

/// The windows, by what was asked.
#[derive(Debug)]
pub(super) struct Ready {
    windows: Bounded<Asked, Slot>,
}

impl Ready {
    /// Keeps at most so many windows and bytes. What a context holds takes at most `item_max`, and so does a window of it.
    pub(super) fn new(windows_max: u64, bytes_max: u64, item_max: u64) -> Option<Self> {
        let windows = bounded(windows_max, bytes_max, item_max)?;
        Some(Self { windows })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.windows.weight()
    }

    pub(super) fn clear(&self) {
        self.windows.clear();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    key: ContextKey,
    request: WindowRequest,
}

/// An [`Asked`] of somebody else's.
struct Asking<'a> {
    key: &'a ContextKey,
    request: &'a WindowRequest,
}

impl Asking<'_> {
    fn owned(&self) -> Asked {
        Asked {
            key: self.key.clone(),
            request: *self.request,
        }
    }
}

impl Hash for Asking<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
        // Requests for one context differ in little else.
        self.request.max_tokens.unwrap_or(u64::MAX).hash(state);
    }
}

impl Hash for Asked {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { key, request } = self;
        Asking { key, request }.hash(state);
    }
}

impl Equivalent<Asked> for Asking<'_> {
    fn equivalent(&self, asked: &Asked) -> bool {
        *self.request == asked.request && *self.key == asked.key
    }
}

#[derive(Clone, Debug)]
struct Slot {
    window: Arc<Window>,
    head: Kept,
    /// The context's in a token, which is not cheap to make.
    name: Name,
    /// The window's.
    version: Version,
    history: u64,
    stream: u64,
    expires_at: Option<Timestamp>,
    bytes: u64,
}

impl Slot {
    fn new(key: &ContextKey, head: &Context, history: u64, kept: Kept, window: Arc<Window>) -> Self {
        Self {
            name: Name::of(key),
            head: kept,
            version: window.version,
            history,
            stream: head.stream,
            expires_at: head.expires_at,
            // A window shares the bodies, has its own list of items, and is kept as it was written for its readers.
            bytes: window.items.iter().map(size).sum::<u64>() + OVERHEAD,
            window,
        }
    }

    /// K5
    fn is_expired(&self, store: &Inner) -> bool {
        self.expires_at.is_some_and(|at| at <= store.clock.now())
    }

    /// D4. A context that was forgotten altogether and made anew has the same versions again, but on a later stream.
    fn is_of(&self, head: &Context, history: u64) -> bool {
        self.history == history && self.version == head.version && self.stream == head.stream
    }
}

impl Weigh for Slot {
    fn weight(&self) -> u64 {
        self.bytes
    }
}
