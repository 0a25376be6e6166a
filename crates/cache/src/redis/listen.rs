//! Listening to the partitions' channels. What is missed, doubled or late is the coherence protocol's business.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

use super::link::{Dial, Link, Push, connected};
use super::wire;
use crate::remote::Logged;

/// How long until what was not subscribed is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Listens until it is dropped.
pub(super) async fn listen(dial: Dial, channels: Vec<String>, sink: mpsc::Sender<Logged>) {
    let push = Push(Arc::new(move |info: PushInfo| {
        if let Some(logged) = understood(&info) {
            // A full inbox is a gap like any other.
            drop(sink.try_send(logged));
        }
    }));
    let mut last = None;
    loop {
        let mut link = connected(&dial, Some(push.clone()), |_| ()).await;
        subscribe(&mut link, channels.clone()).await;
        // Until here it was heard as far as it still spoke: it may be one server of several that hangs.
        drop(last);
        // From here on the library subscribes again whenever it has connected again.
        match link {
            Link::Cluster(mut link) => {
                link.falls_silent().await;
                last = Some(link);
            }
            Link::Managed(_) | Link::Plain(_) => return std::future::pending().await,
        }
    }
}

/// Subscribes to all of them, however long that takes, or until the link is to be replaced.
async fn subscribe(link: &mut Link, mut left: Vec<String>) {
    while !left.is_empty() {
        let mut missing = Vec::new();
        for channel in left {
            let done = match link {
                Link::Managed(link) => link.subscribe(&channel).await,
                Link::Cluster(link) if link.is_silent() => return,
                Link::Cluster(link) => link.ssubscribe(&channel).await,
                Link::Plain(link) => link.subscribe(&channel).await,
            };
            if done.is_err() {
                missing.push(channel);
            }
        }
        if !missing.is_empty() {
            tokio::time::sleep(AGAIN).await;
        }
        left = missing;
    }
}

fn understood(info: &PushInfo) -> Option<Logged> {
    if !matches!(info.kind, PushKind::Message | PushKind::SMessage) {
        return None;
    }
    match info.data.last()? {
        Value::BulkString(bytes) => wire::logged(bytes),
        _ => None,
    }
}
