//! Reading contexts in.
//!
//! A context is written only after all of its lines were read and found good, so a bad line leaves nothing
//! half-written. Importing the same file again changes nothing; an import that was cut off goes on where it
//! ended, because what is there already is compared with what the file says.

use contextkeep_core::item::NewItem;
use contextkeep_core::settings::LimitSettings;
use contextkeep_core::store::{ItemQuery, Order};
use contextkeep_core::{
    AppendRequest, ContextId, ContextKey, ContextManager, Error, Invalid, NewContext, Result, Seq, TenantId,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::lines::{ExportedContext, LINE_BYTES_MAX, Line};
use crate::rest::dto::parse_items;

/// Most bytes of items that one context of an import may have, because they are held in memory.
const CONTEXT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most errors that a report lists; the rest is only counted.
const ERRORS_MAX: usize = 100;
/// Most of what each of them says: bytes.
const DETAIL_MAX: usize = 1000;

/// What an import did.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Report {
    /// Contexts that are new.
    pub created: u64,
    /// Contexts that were there and got the rest of their items.
    pub resumed: u64,
    /// Contexts that were there, complete.
    pub unchanged: u64,
    /// Items added.
    pub items: u64,
    /// Contexts or lines that were not imported.
    pub failed: u64,
    /// Why; at most 100 are listed.
    pub errors: Vec<LineError>,
}

/// Why a line, or the context that ends with it, was not imported.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineError {
    /// Counted from 1.
    pub line: u64,
    /// The code of the error.
    pub code: &'static str,
    /// What is wrong.
    pub detail: String,
}

/// An import under way: feed it lines, then finish it.
#[derive(Debug)]
pub struct Import<'manager> {
    manager: &'manager dyn ContextManager,
    limits: &'manager LimitSettings,
    tenant: TenantId,
    agent_id: String,
    line: u64,
    open: Option<Open>,
    /// Lines of a context whose first line was bad are passed over up to its end.
    skipping: bool,
    report: Report,
}

/// A context whose end has not been read.
#[derive(Debug)]
struct Open {
    new: NewContext,
    items: Vec<NewItem>,
    bytes: u64,
}

impl<'manager> Import<'manager> {
    /// Imports into `tenant`; conversations that name no agent get `agent_id`.
    pub fn new(
        manager: &'manager dyn ContextManager,
        limits: &'manager LimitSettings,
        tenant: TenantId,
        agent_id: String,
    ) -> Self {
        Self {
            manager,
            limits,
            tenant,
            agent_id,
            line: 0,
            open: None,
            skipping: false,
            report: Report::default(),
        }
    }

    /// Takes one line, without its line end. A bad line is noted in the report; the import goes on.
    ///
    /// # Errors
    /// Only what makes going on pointless: the storage is full, damaged or not available.
    pub async fn line(&mut self, text: &[u8]) -> Result<()> {
        self.line += 1;
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        match self.take(text).await {
            Err(error) if error.is_callers() => {
                self.open = None;
                self.skipping = true;
                self.note(&error);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Ends the import.
    pub fn finish(mut self) -> Report {
        if self.open.take().is_some() {
            self.note(
                &Invalid::new("", "the file ends inside a context")
                    .hint("it was cut off; export it again")
                    .into(),
            );
        }
        self.report
    }

    /// What was done so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    fn note(&mut self, error: &Error) {
        self.report.failed += 1;
        if self.report.errors.len() < ERRORS_MAX {
            let mut detail = error.to_string();
            // It may quote what it refuses.
            detail.truncate(detail.floor_char_boundary(DETAIL_MAX));
            self.report.errors.push(LineError {
                line: self.line,
                code: error.code(),
                detail,
            });
        }
    }

    async fn take(&mut self, text: &[u8]) -> Result<()> {
        if text.len() > LINE_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a line in bytes".into(),
                actual: text.len() as u64,
                limit: LINE_BYTES_MAX as u64,
            });
        }
        let text = std::str::from_utf8(text)
            .map_err(|error| Invalid::new("", format!("is not UTF-8 at byte {}", error.valid_up_to())))?;
        let line: Line<'_> = serde_json::from_str(text)
            .map_err(|error| Invalid::new("", format!("is not a line of an export: {error}")))?;
        if let Some(messages) = line.messages {
            return self
                .conversation(line.id, &messages.iter().map(|raw| raw.get()).collect::<Vec<_>>())
                .await;
        }
        if let Some(context) = line.context {
            self.skipping = false;
            return self.begin(line.contextkeep, context.get());
        }
        if self.skipping && (line.item.is_some() || line.end.is_some()) {
            return Ok(());
        }
        if let Some(item) = line.item {
            return self.item(item.get());
        }
        match line.end {
            Some(end) => self.end(end.items).await,
            None => Err(
                Invalid::new("", "has none of the keys messages, context, item and end")
                    .hint("import reads OpenAI chat lines and Contextkeep's own export")
                    .into(),
            ),
        }
    }

    async fn conversation(&mut self, id: Option<String>, messages: &[&str]) -> Result<()> {
        let id = id.as_deref().map(ContextId::parse).transpose()?;
        let items = parse_items(messages.iter().copied(), self.limits.item_size.as_u64())?;
        let new = NewContext {
            id,
            ..NewContext::of_agent(self.agent_id.clone())
        };
        self.write(new, items).await
    }

    fn begin(&mut self, version: Option<u32>, context: &str) -> Result<()> {
        if self.open.is_some() {
            return Err(Invalid::new("", "a context begins before the one before it has ended").into());
        }
        if version != Some(1) {
            return Err(
                Invalid::new("contextkeep", "is not 1, the only format that this version reads").into(),
            );
        }
        let context: ExportedContext<'_> =
            serde_json::from_str(context).map_err(|error| Invalid::new("context", error.to_string()))?;
        self.open = Some(Open {
            new: context.parse()?,
            items: Vec::new(),
            bytes: 0,
        });
        Ok(())
    }

    fn item(&mut self, body: &str) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(Invalid::new("item", "stands outside a context").into());
        };
        open.bytes += body.len() as u64;
        if open.bytes > CONTEXT_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a context of an import in bytes".into(),
                actual: open.bytes,
                limit: CONTEXT_BYTES_MAX,
            });
        }
        open.items
            .push(NewItem::parse(body, self.limits.item_size.as_u64())?);
        Ok(())
    }

    async fn end(&mut self, items: u64) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Err(Invalid::new("end", "stands outside a context").into());
        };
        if open.items.len() as u64 != items {
            return Err(Invalid::new(
                "end.items",
                format!("is {items}, but {} were read", open.items.len()),
            )
            .into());
        }
        self.write(open.new, open.items).await
    }

    async fn write(&mut self, new: NewContext, items: Vec<NewItem>) -> Result<()> {
        let created = self.manager.create(&self.tenant, new).await?.value;
        let key = ContextKey::new(self.tenant.clone(), created.context.id);
        let there = if created.is_new {
            0
        } else {
            self.compare(&key, &items).await?
        };
        let missing = items.len() - there;
        // Conditional on what was compared, so that another writer in between is an error and not a mixture.
        let mut version = created.context.version;
        for chunk in items[there..].chunks(self.limits.append_items) {
            let request = AppendRequest {
                items: chunk.to_vec(),
                expected: Some(version),
                idempotency_key: None,
            };
            version = self.manager.append(&key, request).await?.value.version;
            self.report.items += chunk.len() as u64;
        }
        match (created.is_new, missing) {
            (true, _) => self.report.created += 1,
            (false, 0) => self.report.unchanged += 1,
            (false, _) => self.report.resumed += 1,
        }
        Ok(())
    }

    /// How many of the items are there already.
    async fn compare(&self, key: &ContextKey, items: &[NewItem]) -> Result<usize> {
        let mut same = 0;
        let mut after = 0;
        loop {
            let query = ItemQuery {
                after,
                before: Seq::MAX,
                order: Order::Ascending,
                limit: 500,
                bytes_max: 4 * 1024 * 1024,
            };
            let page = self.manager.items(key, query).await?.value;
            for item in &page.items {
                if items.get(same).is_none_or(|new| new.body != item.body) {
                    return Err(Invalid::new(
                        "",
                        format!(
                            "context {} is there with other items, from seq {} on",
                            key.id, item.seq
                        ),
                    )
                    .hint("delete it first, or import under another tenant")
                    .into());
                }
                same += 1;
                after = item.seq;
            }
            if !page.more {
                return Ok(same);
            }
        }
    }
}
