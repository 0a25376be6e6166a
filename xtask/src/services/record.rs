//! Notes under `target/` of what was started, for whoever has to end it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use contextkeep_test_support::Lifetime;
use contextkeep_test_support::process::Identity;
use serde::{Deserialize, Serialize};

use crate::sh;

/// What one `up` or `test` has started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    name: String,
    /// The process of the `test` that owns it, with its start time; `up` has none.
    owner: Option<String>,
    root: Option<PathBuf>,
    compose: Option<String>,
}

impl Record {
    /// The record of this process' services, of which there are none yet.
    pub(super) fn new(lifetime: Lifetime) -> Result<Self> {
        let owned = lifetime == Lifetime::Owner;
        let name = if owned {
            format!("test-{}", std::process::id())
        } else {
            "up".to_owned()
        };
        let owner = Identity::own().filter(|_| owned).map(|own| own.to_string());
        let record = Self {
            name,
            owner,
            root: None,
            compose: None,
        };
        record.save()
    }

    /// Notes the folder that local servers live in.
    pub(super) fn of_folder(mut self, root: &Path) -> Result<Self> {
        self.root = Some(root.to_owned());
        self.save()
    }

    /// Notes the Compose project.
    pub(super) fn of_compose(mut self, project: String) -> Result<Self> {
        self.compose = Some(project);
        self.save()
    }

    fn save(self) -> Result<Self> {
        let file = self.file();
        fs::create_dir_all(folder()).context("could not create the folder for records")?;
        let text = serde_json::to_string_pretty(&self)?;
        fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))?;
        Ok(self)
    }

    /// The record of `up`, if there is one.
    pub(crate) fn of_up() -> Option<Self> {
        Self::all().into_iter().find(|record| record.owner.is_none())
    }

    /// Every record that can be read.
    pub(crate) fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir(folder()) else {
            return Vec::new();
        };
        let records = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            path.to_str()?.ends_with(".record.json").then_some(())?;
            serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
        });
        records.collect()
    }

    /// Whether its owner still runs and will end it itself.
    pub(crate) fn is_owned(&self) -> bool {
        let owner = self.owner.as_deref().and_then(Identity::parse);
        owner.is_some_and(Identity::is_alive)
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The folder of local servers.
    pub(crate) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The Compose project.
    pub(crate) fn compose(&self) -> Option<&str> {
        self.compose.as_deref()
    }

    /// The file that tests attach to.
    pub(crate) fn services_file(&self) -> PathBuf {
        folder().join(format!("{}.services.json", self.name))
    }

    fn file(&self) -> PathBuf {
        folder().join(format!("{}.record.json", self.name))
    }

    /// Removes both files. One that is not there needs no removal, and nothing depends on one that stays.
    pub(crate) fn remove(&self) {
        fs::remove_file(self.services_file()).unwrap_or_default();
        fs::remove_file(self.file()).unwrap_or_default();
    }
}

fn folder() -> PathBuf {
    sh::root().join("target").join("test-services")
}
