//! The scripts. `EVALSHA`; a server that does not know one is taught it, so flushing scripts costs one round trip.

use std::sync::LazyLock;

use deadpool_redis::redis::Script;

const BEGIN: &str = include_str!("scripts/begin.lua");
const LOG: &str = include_str!("scripts/log.lua");

fn begun(rest: &str) -> Script {
    Script::new(&format!("{BEGIN}\n{rest}"))
}

fn logging(rest: &str) -> Script {
    Script::new(&format!("{BEGIN}\n{LOG}\n{rest}"))
}

pub(super) static BEGINNING: LazyLock<Script> = LazyLock::new(|| begun("return meta"));
pub(super) static LEASE: LazyLock<Script> = LazyLock::new(|| begun(include_str!("scripts/lease.lua")));
pub(super) static FILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/fill.lua")));
pub(super) static APPLY: LazyLock<Script> = LazyLock::new(|| logging(include_str!("scripts/apply.lua")));
pub(super) static TAG: LazyLock<Script> = LazyLock::new(|| begun(include_str!("scripts/tag.lua")));
pub(super) static BUMP: LazyLock<Script> = LazyLock::new(|| logging(include_str!("scripts/bump.lua")));
pub(super) static REPLAY: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/replay.lua")));
