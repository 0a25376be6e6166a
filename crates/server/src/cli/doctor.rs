//! `contextkeep doctor` and `contextkeep migrate`.

use anyhow::bail;
use contextkeep_config::Loaded;
use contextkeep_core::embedded::EmbeddedStore;

use super::output;
use crate::app::Parts;
use crate::config::{AppConfig, without_effect};

/// Brings the schema up to date.
pub(super) fn migrate(config: &AppConfig) -> anyhow::Result<()> {
    let version = EmbeddedStore::migrate(&config.context_manager.embedded)?;
    Ok(output::print(
        format!("the data file has schema version {version}\n").as_bytes(),
    )?)
}

/// Looks at everything that can be looked at from here.
pub(super) async fn run(loaded: &Loaded<AppConfig>) -> anyhow::Result<()> {
    let mut report = vec!["ok    the configuration has no problems".to_owned()];
    for note in without_effect(loaded) {
        report.push(format!("note  {note}"));
    }
    let mut failed = false;
    let folder = loaded.value.context_manager.embedded.path.display().to_string();
    match examine(&loaded.value).await {
        Ok(lines) => report.extend(lines.into_iter().map(|line| format!("ok    {line}"))),
        Err(error) => {
            failed = true;
            report.push(format!("FAIL  the store in {folder}: {error:#}"));
        }
    }
    output::print((report.join("\n") + "\n").as_bytes())?;
    if failed {
        bail!("something is wrong; see above");
    }
    Ok(())
}

async fn examine(config: &AppConfig) -> anyhow::Result<Vec<String>> {
    let version = EmbeddedStore::migrate(&config.context_manager.embedded)?;
    let parts = Parts::open(config)?;
    let outcome = async {
        let problems = parts.embedded.verify().await?;
        if !problems.is_empty() {
            bail!("the data file is damaged: {}", problems.join("; "));
        }
        let health = parts.manager.check().await?;
        Ok(vec![
            format!("the data file opens and is whole (schema version {version})"),
            format!("{} items wait to be indexed for search", health.search_lag_items),
        ])
    }
    .await;
    parts.close().await;
    outcome
}
