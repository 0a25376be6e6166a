//! `contextkeep doctor` and `contextkeep migrate`.

use anyhow::bail;
use contextkeep_config::Loaded;
use contextkeep_core::embedded::EmbeddedStore;

use super::output;
use crate::app::{Parts, Storage};
use crate::caching;
use crate::config::{AppConfig, without_effect};

/// Brings the schema up to date.
pub(super) async fn migrate(config: &AppConfig) -> anyhow::Result<()> {
    let storage = Storage::new(config)?;
    let line = match &storage {
        Storage::Embedded(_) => format!(
            "the data file has schema version {}\n",
            EmbeddedStore::migrate(&config.context_manager.embedded)?
        ),
        Storage::Postgres(store) => format!("the database has schema version {}\n", store.migrate().await?),
    };
    Ok(output::print(line.as_bytes())?)
}

/// Looks at everything that can be looked at from here.
pub(super) async fn run(loaded: &Loaded<AppConfig>) -> anyhow::Result<()> {
    let mut report = vec!["ok    the configuration has no problems".to_owned()];
    for note in without_effect(loaded) {
        report.push(format!("note  {note}"));
    }
    let mut failed = false;
    match examine(&loaded.value).await {
        Ok(lines) => report.extend(lines.into_iter().map(|line| format!("ok    {line}"))),
        Err(error) => {
            failed = true;
            report.push(format!(
                "FAIL  the store in {}: {error:#}",
                crate::app::data(&loaded.value)
            ));
        }
    }
    // The server would run without it, but somebody meant it to be there.
    let cache = &loaded.value.context_manager.cache;
    if cache.redis.enabled && loaded.value.context_manager.database.dsn.is_some() {
        match caching::ask_redis(cache).await {
            Ok(()) => report.push("ok    Redis answers".to_owned()),
            Err(error) => {
                failed = true;
                report.push(format!(
                    "FAIL  Redis (context_manager.cache.redis): {error:#}; servers run without it, and slower"
                ));
            }
        }
    }
    output::print((report.join("\n") + "\n").as_bytes())?;
    if failed {
        bail!("something is wrong; see above");
    }
    Ok(())
}

async fn examine(config: &AppConfig) -> anyhow::Result<Vec<String>> {
    let parts = Parts::open(config)?;
    let outcome = async {
        let mut lines = vec![match &parts.storage {
            Storage::Embedded(store) => {
                let problems = store.verify().await?;
                if !problems.is_empty() {
                    bail!("the data file is damaged: {}", problems.join("; "));
                }
                let version = EmbeddedStore::migrate(&config.context_manager.embedded)?;
                format!("the data file opens and is whole (schema version {version})")
            }
            Storage::Postgres(store) => {
                store.prepare().await?;
                format!(
                    "the database answers and takes writes ({})",
                    store.describe().await?
                )
            }
        }];
        let health = parts.manager.check().await?;
        lines.push(format!(
            "{} items wait to be indexed for search",
            health.search_lag_items
        ));
        Ok(lines)
    }
    .await;
    parts.close().await;
    outcome
}
