//! `contextkeep import` and `contextkeep export`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use contextkeep_core::adopt::Progress;
use contextkeep_core::embedded::EmbeddedStore;
use contextkeep_core::settings::EmbeddedSettings;
use contextkeep_core::store::{ListPosition, ListQuery};
use contextkeep_core::{ContextId, ContextKey, ContextManager, SystemClock, TenantId};
use futures_util::TryStreamExt as _;
use indicatif::ProgressBar;

use super::{Tenant, output};
use crate::app::{Parts, Storage};
use crate::config::AppConfig;
use crate::transfer::{self, Format, LINE_BYTES_MAX, export_context};

#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// Files to read; `-` or none reads standard input
    files: Vec<PathBuf>,
    /// The agent of conversations that name none
    #[arg(long, default_value = "import")]
    agent: String,
    /// Move everything from this folder of an embedded store, all tenants, into the empty database that is configured
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["files", "agent"])]
    from_embedded: Option<PathBuf>,
    #[command(flatten)]
    tenant: Tenant,
}

impl Import {
    pub(super) async fn run(self, config: &AppConfig, parts: &Parts) -> anyhow::Result<()> {
        if let Some(folder) = self.from_embedded {
            return adopt(config, parts, folder).await;
        }
        let files = if self.files.is_empty() {
            vec![PathBuf::from("-")]
        } else {
            self.files
        };
        let mut failed = 0;
        for file in &files {
            let name = file.display();
            let (input, size) = open(file).with_context(|| format!("cannot read {name}"))?;
            let bar = output::progress(size, "bytes");
            let limits = &config.context_manager.limits;
            let mut import = transfer::Import::new(
                parts.manager.as_ref(),
                limits,
                self.tenant.tenant.clone(),
                self.agent.clone(),
            );
            let outcome = feed(input, &mut import, &bar)
                .await
                .with_context(|| format!("importing {name}"));
            bar.finish_and_clear();
            let report = import.finish();
            for error in &report.errors {
                output::complain(&format!(
                    "{name}:{}: {} ({})",
                    error.line, error.detail, error.code
                ));
            }
            output::complain(&format!(
                "{name}: {} created, {} continued, {} unchanged, {} items added, {} failed",
                report.created, report.resumed, report.unchanged, report.items, report.failed
            ));
            outcome?;
            failed += report.failed;
        }
        if failed > 0 {
            bail!(
                "{failed} contexts or lines were not imported; importing the corrected file again adds only what is missing"
            );
        }
        Ok(())
    }
}

/// Moves an embedded installation into Postgres.
async fn adopt(config: &AppConfig, parts: &Parts, folder: PathBuf) -> anyhow::Result<()> {
    let Storage::Postgres(store) = &parts.storage else {
        bail!("the target is not Postgres: set context_manager.database.dsn (--from-embedded moves into it)");
    };
    // A folder that is mistyped would be made, and nothing moved from it.
    if !folder.join("contextkeep.db").is_file() {
        bail!(
            "{} has no contextkeep.db: it is not the folder of an embedded store",
            folder.display()
        );
    }
    let settings = EmbeddedSettings {
        path: folder.clone(),
        ..config.context_manager.embedded.clone()
    };
    let embedded = EmbeddedStore::open(&settings, Arc::new(SystemClock))?;
    let bar = output::progress(0, "rows");
    let outcome = contextkeep_core::adopt::adopt(&embedded, store, |progress| match progress {
        Progress::Copied(done, of) => {
            bar.set_length(of);
            bar.set_position(done);
        }
        Progress::Compared(done, of) => {
            bar.set_message("contexts compared");
            bar.set_length(of);
            bar.set_position(done);
        }
    })
    .await;
    bar.finish_and_clear();
    embedded.close();
    let adopted = outcome.with_context(|| format!("moving {}", folder.display()))?;
    output::complain(&format!(
        "{}: {} rows copied; {} contexts and {} items read from both stores and found equal; the file is as it was",
        folder.display(),
        adopted.rows,
        adopted.contexts,
        adopted.items
    ));
    Ok(())
}

fn open(file: &Path) -> io::Result<(Box<dyn BufRead>, u64)> {
    if file == Path::new("-") {
        return Ok((Box::new(BufReader::new(io::stdin())), 0));
    }
    let file = File::open(file)?;
    let size = file.metadata()?.len();
    Ok((Box::new(BufReader::with_capacity(1 << 16, file)), size))
}

async fn feed(
    mut input: Box<dyn BufRead>,
    import: &mut transfer::Import<'_>,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte over the limit is enough to know that a line is too long.
        let read = input
            .by_ref()
            .take(LINE_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        bar.inc(read as u64);
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > LINE_BYTES_MAX {
            bail!("a line is longer than {LINE_BYTES_MAX} bytes");
        }
        import.line(&line).await?;
        let report = import.report();
        bar.set_message(format!(
            "{} contexts",
            report.created + report.resumed + report.unchanged
        ));
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Contexts to write, in this order
    #[arg(value_parser = ContextId::parse)]
    ids: Vec<ContextId>,
    /// Write all contexts of the tenant, oldest first
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// How contexts are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// File to write; standard output if absent. It appears under its name only when it is complete
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    tenant: Tenant,
}

impl Export {
    pub(super) async fn run(self, parts: &Parts) -> anyhow::Result<()> {
        let manager = parts.manager.as_ref();
        let ids = match (self.ids.is_empty(), self.all) {
            (false, _) => self.ids,
            (true, true) => all(manager, &self.tenant.tenant).await?,
            (true, false) => bail!("name the contexts to export, or --all"),
        };
        let bar = output::progress(ids.len() as u64, "contexts");
        match &self.output {
            None => {
                write(
                    manager,
                    &self.tenant.tenant,
                    &ids,
                    self.format,
                    &mut io::stdout().lock(),
                    &bar,
                )
                .await?;
            }
            Some(path) => {
                let unfinished = path.with_added_extension("part");
                let mut file = io::BufWriter::new(
                    File::create(&unfinished)
                        .with_context(|| format!("cannot write {}", unfinished.display()))?,
                );
                write(manager, &self.tenant.tenant, &ids, self.format, &mut file, &bar).await?;
                file.flush()?;
                file.get_ref().sync_all()?;
                std::fs::rename(&unfinished, path)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }
}

async fn write(
    manager: &dyn ContextManager,
    tenant: &TenantId,
    ids: &[ContextId],
    format: Format,
    out: &mut dyn Write,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    for id in ids {
        let key = ContextKey::new(tenant.clone(), id.clone());
        let mut pieces = Box::pin(export_context(manager, &key, format));
        while let Some(piece) = pieces
            .try_next()
            .await
            .with_context(|| format!("exporting {id}"))?
        {
            out.write_all(&piece)?;
        }
        bar.inc(1);
    }
    Ok(())
}

async fn all(manager: &dyn ContextManager, tenant: &TenantId) -> anyhow::Result<Vec<ContextId>> {
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let page = manager
            .list(
                tenant,
                ListQuery {
                    after,
                    limit: 1000,
                    ..ListQuery::default()
                },
            )
            .await?
            .value;
        after = page.contexts.last().map(|last| ListPosition {
            created_at: last.created_at,
            id: last.id.clone(),
        });
        ids.extend(page.contexts.into_iter().map(|context| context.id));
        if !page.more {
            ids.reverse();
            return Ok(ids);
        }
    }
}
