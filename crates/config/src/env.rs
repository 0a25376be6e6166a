//! The only reader of the process environment in the workspace.
//!
//! Everything else takes values as parameters, so that a test can pass its own and two tests never
//! race over a variable. The ban is in `clippy.toml`; the two exceptions are here.

use std::ffi::{OsStr, OsString};

/// One variable of the process environment, `None` when it is not set.
///
/// For the few places that need a variable which is not configuration (`NO_COLOR`, a test service's
/// URL). Settings come through [`Loader::env`](crate::Loader::env).
#[expect(clippy::disallowed_methods, reason = "the one place that reads a variable")]
pub fn var(name: impl AsRef<OsStr>) -> Option<OsString> {
    std::env::var_os(name)
}

/// Every variable of the process environment.
#[expect(clippy::disallowed_methods, reason = "the one place that lists the variables")]
pub(crate) fn all() -> Vec<(OsString, OsString)> {
    std::env::vars_os().collect()
}
