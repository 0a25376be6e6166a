//! What moves in with an embedded installation.

use super::history::{Naming, append_of, create, key};
use super::*;
use crate::adopt::{Adopted, adopt};
use crate::embedded::EmbeddedStore;
use crate::settings::EmbeddedSettings;
use crate::store::{Append, Appended, ContextStore, Retention};

// S4: a client id is remembered whose item was replaced and purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs services"]
async fn client_ids_move_in_without_their_items() {
    let folder = tempfile::tempdir().unwrap();
    let clock = crate::contract::clock();
    let settings = EmbeddedSettings {
        path: folder.path().to_owned(),
        ..EmbeddedSettings::default()
    };
    let from = EmbeddedStore::open(&settings, clock.clone()).unwrap();
    create(&from, 1).await;
    let named = |name: &str| append_of(name, Naming::ClientId, 2);
    let answer = |appended: Appended| Appended {
        replayed: true,
        at: None,
        ..appended
    };
    let gone = answer(from.append(&key(0), named("gone")).await.unwrap());
    let here = answer(from.replace(&key(0), named("here")).await.unwrap().appended);
    let retention = Retention {
        tombstones_before: clock.now(),
        keys_before: clock.now(),
        batch: 1000,
    };
    assert_eq!(from.purge(retention).await.unwrap().items, 2);

    let scratch = Scratch::create(&shared()).await;
    let to = scratch.open(clock).await;
    let Adopted { items, .. } = adopt(&from, &to, |_| {}).await.unwrap();
    assert_eq!(items, 2);
    assert_eq!(to.append(&key(0), named("gone")).await.unwrap(), gone);
    assert_eq!(to.append(&key(0), named("here")).await.unwrap(), here);
    let reused = Append {
        items: append_of("gone", Naming::ClientId, 1).items,
        ..append_of("here", Naming::None, 1)
    };
    to.replace(&key(0), reused.clone()).await.unwrap();
    let again = to.append(&key(0), reused).await.unwrap();
    assert_eq!((again.first_seq, again.replayed), (5, true));
}
