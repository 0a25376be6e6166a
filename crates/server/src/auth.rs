//! Who is calling. The tenant is always the credential's, never the request's (G8).

use contextkeep_core::TenantId;

/// The authenticated caller; a middleware puts it into the extensions of every request that may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Whose data the caller may touch.
    pub tenant: TenantId,
    /// Name of the credential, for the log. Never the secret.
    pub name: String,
}
