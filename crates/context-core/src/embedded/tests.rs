use std::sync::Arc;

use super::*;
use crate::clock::ManualClock;

async fn scratch(clock: Arc<ManualClock>) -> (Arc<dyn ContextStore>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings {
        path: folder.path().join("data"),
        ..EmbeddedSettings::default()
    };
    (Arc::new(EmbeddedStore::open(&settings, clock).unwrap()), folder)
}

crate::store_contract!(scratch);
