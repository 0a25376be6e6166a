//! The synchronisers of the flight table and the hit path, which loom replaces by its own when it explores them.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize},
};

use std::sync::PoisonError;
pub(crate) use std::sync::atomic::Ordering;

/// Locks; a poisoned lock is used as it is, because no critical section of the crate runs foreign code that could
/// unwind in the middle of a change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what nobody waits for any more. Without a runtime, at the end of a program, it is dropped.
#[cfg(not(loom))]
pub(crate) fn spawn(work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        drop(runtime.spawn(work));
    }
}

#[cfg(loom)]
pub(crate) fn spawn(work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
    loom::thread::spawn(move || loom::future::block_on(work));
}
