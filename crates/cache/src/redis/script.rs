//! The scripts. `EVALSHA`; a server that does not know one is taught it, so flushing scripts costs one round trip.

use std::sync::LazyLock;

use deadpool_redis::redis::Script;

const BEGIN: &str = include_str!("scripts/begin.lua");
const HEAD: &str = include_str!("scripts/head.lua");
const LOG: &str = include_str!("scripts/log.lua");

fn script(parts: &[&str]) -> Script {
    Script::new(&parts.join("\n"))
}

pub(super) static BEGINNING: LazyLock<Script> = LazyLock::new(|| script(&[BEGIN, "return meta"]));
pub(super) static LEASE: LazyLock<Script> =
    LazyLock::new(|| script(&[HEAD, BEGIN, include_str!("scripts/lease.lua")]));
pub(super) static FILL: LazyLock<Script> =
    LazyLock::new(|| script(&[HEAD, include_str!("scripts/fill.lua")]));
pub(super) static APPLY: LazyLock<Script> =
    LazyLock::new(|| script(&[HEAD, BEGIN, LOG, include_str!("scripts/apply.lua")]));
pub(super) static TAG: LazyLock<Script> = LazyLock::new(|| script(&[BEGIN, include_str!("scripts/tag.lua")]));
pub(super) static BUMP: LazyLock<Script> =
    LazyLock::new(|| script(&[BEGIN, LOG, include_str!("scripts/bump.lua")]));
pub(super) static REPLAY: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("scripts/replay.lua")]));
