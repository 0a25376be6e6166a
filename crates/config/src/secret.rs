//! Secrets: `env:NAME` and `file:PATH`, read when the settings are loaded and never printed.
//!
//! A secret is a text whose schema says `writeOnly`. Everything that is neither reference is the
//! secret itself.

use std::ffi::OsString;
use std::path::Path;

use crate::{env, file};

#[cfg(test)]
mod tests;

/// The largest secret file, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// What stands for a secret wherever one would be shown.
pub(crate) const REDACTED: &str = "<redacted>";

/// Where `env:` looks: a fixed list when one was given, else the process environment.
#[derive(Clone, Default)]
pub(crate) struct Variables(pub(crate) Option<Vec<(OsString, OsString)>>);

impl Variables {
    fn get(&self, name: &str) -> Option<OsString> {
        match &self.0 {
            Some(fixed) => fixed
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone()),
            None => env::var(name),
        }
    }
}

/// Why a secret could not be resolved; names the variable or the file, never a value.
#[derive(Debug)]
pub(crate) struct Unresolved {
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

/// The secret that `text` is or refers to. A relative file is looked for in `folder`.
pub(crate) fn resolve(text: &str, folder: &Path, variables: &Variables) -> Result<String, Unresolved> {
    if let Some(name) = text.strip_prefix("env:") {
        return from_variable(name, variables);
    }
    match text.strip_prefix("file:") {
        Some(path) => from_file(&folder.join(path)),
        None => Ok(text.to_owned()),
    }
}

fn from_variable(name: &str, variables: &Variables) -> Result<String, Unresolved> {
    let unresolved = |what: &str, hint| {
        Err(Unresolved {
            message: format!("the variable {name} {what}"),
            hint,
        })
    };
    if name.is_empty() {
        return Err(Unresolved {
            message: "`env:` names no variable".to_owned(),
            hint: "write `env:NAME`",
        });
    }
    match variables.get(name).map(OsString::into_string) {
        None => unresolved("is not set", "set it, or use `file:PATH`"),
        Some(Err(_)) => unresolved("is not UTF-8", "encode the secret as text"),
        Some(Ok(secret)) if secret.is_empty() => unresolved("is empty", "set it, or remove the key"),
        Some(Ok(secret)) => Ok(secret),
    }
}

fn from_file(path: &Path) -> Result<String, Unresolved> {
    let shown = path.display();
    match file::read(path, MAX_SECRET_BYTES) {
        Err(unreadable) => Err(Unresolved {
            message: format!("the secret's file {shown} {}", unreadable.message),
            hint: unreadable.hint.unwrap_or("check the path"),
        }),
        Ok(None) => Err(Unresolved {
            message: format!("the secret's file {shown} does not exist"),
            hint: "a relative path starts at the configuration file's folder",
        }),
        Ok(Some(text)) => {
            // Editors and `echo` end a file with a line break that is no part of the secret.
            let secret = text
                .strip_suffix('\n')
                .map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
            if secret.is_empty() {
                let message = format!("the secret's file {shown} is empty");
                return Err(Unresolved {
                    message,
                    hint: "write the secret into it, or remove the key",
                });
            }
            Ok(secret.to_owned())
        }
    }
}
