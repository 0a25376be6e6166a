//! What is brought into use by and by.

use serde::{Deserialize, Serialize};

/// What is brought into use by and by, for all contexts or a share of them. Can be changed while the server runs, by the
/// admin API or by reloading the configuration (SIGHUP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RolloutSettings {
    /// Reads through the cache at all. Writes are told to it in any case, so that other servers may use it.
    pub optimized: Flag,
    /// Reads from the level in the process.
    pub l1: Flag,
    /// Reads from the level that processes share.
    pub l2: Flag,
    /// Reads from read replicas; without, from the primary.
    pub replicas: Flag,
    /// A second replica is asked if the first is late.
    pub hedging: Flag,
}

/// Whether an optimization is used: `on`, `off`, a percentage of contexts, always the same ones on every server, or
/// `shadow`: not used for the answer, but tried beside it and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Flag {
    /// For all contexts alike.
    Named(Switch),
    /// For this share of the contexts, 0 to 100.
    Percent(#[cfg_attr(feature = "schema", schemars(range(min = 0, max = 100)))] u8),
}

/// For all contexts alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Not used.
    Off,
    /// Used.
    On,
    /// Not used for the answer, but tried beside it and compared.
    Shadow,
}

impl Default for Flag {
    fn default() -> Self {
        Self::ON
    }
}

impl Flag {
    /// For all contexts.
    pub const ON: Self = Self::Named(Switch::On);
    /// For none.
    pub const OFF: Self = Self::Named(Switch::Off);
    /// For none, but compared.
    pub const SHADOW: Self = Self::Named(Switch::Shadow);

    /// Whether a context with this place among a hundred uses it.
    #[cfg(feature = "cache")]
    pub(crate) fn takes(self, place: u8) -> bool {
        match self {
            Self::Named(switch) => switch == Switch::On,
            Self::Percent(share) => place < share,
        }
    }
}
