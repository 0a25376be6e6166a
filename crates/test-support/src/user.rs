//! Who runs the servers: Postgres refuses to run as root.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The account the servers run under when the harness itself is root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Login name, for messages.
    pub name: String,
    uid: u32,
    gid: u32,
}

impl User {
    /// `postgres`, else `nobody`, when we are root; `None` (stay who we are) otherwise.
    ///
    /// # Errors
    ///
    /// When root finds neither account.
    pub fn for_servers() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").map_err(|e| Error::io("read /etc/passwd", e))?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::find(&accounts, name))
            .map(Some)
            .ok_or_else(|| {
                Error::State("root has no account `postgres` or `nobody` to run servers under".to_owned())
            })
    }

    fn find(accounts: &str, name: &str) -> Option<Self> {
        accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (uid != 0).then(|| Self {
                name: name.to_owned(),
                uid,
                gid,
            })
        })
    }

    /// Makes the command run as this user; supplementary groups are dropped by the standard library.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives one file or folder to this user.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid)).map_err(Error::at("give away", path))
    }
}

#[cfg(test)]
mod tests;
