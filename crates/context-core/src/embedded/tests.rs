use std::sync::Arc;

use super::*;
use crate::clock::ManualClock;

type Made = (Arc<dyn ContextStore>, tempfile::TempDir);

fn scratch(clock: Arc<ManualClock>) -> std::future::Ready<Made> {
    let folder = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings {
        path: folder.path().join("data"),
        ..EmbeddedSettings::default()
    };
    std::future::ready((Arc::new(EmbeddedStore::open(&settings, clock).unwrap()), folder))
}

crate::store_contract!(scratch);
