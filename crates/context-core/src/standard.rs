//! The manager that goes straight to a store.

mod automatic;
mod hints;
mod many;
mod placing;
mod summarising;
#[cfg(test)]
mod tests;
mod truncating;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use self::hints::Hints;
use crate::background::BackgroundSummaries;
use crate::context::LABELS_MAX;
use crate::error::{Error, Invalid, Result};
use crate::id::{ContextId, ContextKey, IdempotencyKey, TenantId};
use crate::manager::{Answer, AppendRequest, ContextManager, Origin, TruncateRequest, Truncation};
use crate::semantic::{self, Semantic, SemanticPage, SemanticQuery};
use crate::session::{Session, Stage, timed};
use crate::settings::LimitSettings;
use crate::store::{
    Append, Appended, ContextPage, ContextStore, Created, Idempotency, ItemPage, ItemQuery, ListQuery,
    SearchPage, SearchQuery, StoreHealth, TailQuery, repeated_client_id,
};
use crate::summarising::off_the_reactor;
use crate::summary::{PutSummary, Summary, SummaryRequest};
use crate::window::{self, Window, WindowRequest};
use crate::{Context, ContextPatch, Head, NewContext, NewItem, Seq, Timestamp, Tokenizer, Version};

/// Items read to find out what the smallest window would need.
const MINIMUM_ITEMS: u32 = 512;
/// How often an append is counted. A third time needs a context that was deleted and created anew with another
/// tokenizer meanwhile.
const COUNTS_MAX: usize = 3;

/// Serves every operation from one store. Keeps nothing that decides anything, only guesses that the store checks, so that
/// any number of them may share the store. Its clones are one manager.
#[derive(Clone, Debug)]
pub struct StandardContextManager {
    store: Arc<dyn ContextStore>,
    limits: LimitSettings,
    hints: Arc<Hints>,
    automatic: Arc<automatic::Automatic>,
    background: BackgroundSummaries,
    semantic: Option<Semantic>,
}

impl StandardContextManager {
    /// A manager over this store.
    pub fn new(store: Arc<dyn ContextStore>, limits: LimitSettings) -> Self {
        Self {
            background: BackgroundSummaries::without_model(store.clone()),
            store,
            limits,
            hints: Arc::new(Hints::new()),
            automatic: automatic::Automatic::new(),
            semantic: None,
        }
    }

    /// Answers searches by meaning from these vectors.
    #[must_use]
    pub fn with_semantic(mut self, semantic: Semantic) -> Self {
        self.semantic = Some(semantic);
        self
    }

    /// Has summaries that nobody waits for made by these.
    #[must_use]
    pub fn with_background(mut self, background: BackgroundSummaries) -> Self {
        self.background = background;
        self
    }

    /// Counts the items and writes them, once more if the context counts otherwise. The first guess saves a
    /// read: a context's tokenizer never changes, and nearly all have the default one.
    async fn counted(&self, key: &ContextKey, request: AppendRequest, write: Write) -> Result<Appended> {
        check(&request.items, &self.limits)?;
        let idempotency = request
            .idempotency_key
            .map(|key| fingerprint(key, write, &request.items));
        let expected = request.expected;
        let mut tokenizer = self.hints.guess(key);
        tokenizer.require()?;
        let mut items: Arc<[NewItem]> = count(request.items, tokenizer).await?.into();
        for _ in 0..COUNTS_MAX {
            let append = Append {
                items: items.clone(),
                tokenizer,
                expected,
                idempotency: idempotency.clone(),
            };
            let outcome = match write {
                Write::Append => self.store.append(key, append).await,
                Write::Replace => self
                    .store
                    .replace(key, append)
                    .await
                    .map(|replaced| replaced.appended),
            };
            let Err(Error::TokenizerMismatch { actual }) = outcome else {
                return outcome;
            };
            actual.require()?;
            tokenizer = actual;
            self.hints.learn(key, actual);
            items = count(items.to_vec(), tokenizer).await?.into();
        }
        Err(changing())
    }

    async fn assemble(&self, key: &ContextKey, request: WindowRequest) -> Result<Window> {
        let tail = self.store.tail(key, request.tail_query()).await?;
        let budget = request.budget(&tail.context);
        match window::assemble(tail, budget, request.cut) {
            Err(Error::BudgetTooSmall { .. }) => {
                let query = TailQuery {
                    max_tokens: Some(u64::MAX),
                    reserve: 0,
                    items_max: MINIMUM_ITEMS,
                    ..request.tail_query()
                };
                window::assemble(self.store.tail(key, query).await?, budget, request.cut)
            }
            outcome => outcome,
        }
    }
}

#[async_trait::async_trait]
impl ContextManager for StandardContextManager {
    async fn create(&self, tenant: &TenantId, new: NewContext) -> Result<Answer<Created>> {
        new.validate()?;
        let created = self.store.create(tenant, new).await?;
        let key = ContextKey::new(tenant.clone(), created.context.id.clone());
        self.hints.learn(&key, created.context.tokenizer);
        Ok(seen(&key, created.context.version, created))
    }

    async fn get(&self, key: &ContextKey) -> Result<Answer<Arc<Head>>> {
        let context = self.store.head(key).await?;
        Ok(seen(key, context.version, Arc::new(context.into())))
    }

    async fn get_many(&self, tenant: &TenantId, ids: &[ContextId]) -> Result<Answer<Vec<Option<Context>>>> {
        let contexts = self.store.heads(tenant, ids).await?;
        for context in contexts.iter().flatten() {
            note(&(tenant, &context.id).into(), context.version);
        }
        Ok(answer(contexts))
    }

    async fn update(
        &self,
        key: &ContextKey,
        patch: ContextPatch,
        expected: Option<Version>,
    ) -> Result<Answer<Context>> {
        patch.validate()?;
        let context = self.store.update(key, patch, expected).await?;
        Ok(seen(key, context.version, context))
    }

    async fn delete(&self, key: &ContextKey, expected: Option<Version>) -> Result<Answer<Version>> {
        let version = self.store.delete(key, expected).await?;
        Ok(seen(key, version, version))
    }

    async fn delete_many(
        &self,
        tenant: &TenantId,
        deletes: Vec<(ContextId, Option<Version>)>,
    ) -> Answer<Vec<Result<Version>>> {
        let ids: Vec<ContextId> = deletes.iter().map(|(id, _)| id.clone()).collect();
        let outcomes = self.store.delete_many(tenant, deletes).await;
        for (id, outcome) in ids.iter().zip(&outcomes) {
            if let Ok(version) = outcome {
                note(&(tenant, id).into(), *version);
            }
        }
        answer(outcomes)
    }

    async fn append(&self, key: &ContextKey, request: AppendRequest) -> Result<Answer<Appended>> {
        refuse_empty(&request.items)?;
        let appended = self.counted(key, request, Write::Append).await?;
        if appended.over_budget {
            self.is_over_budget(key);
        }
        Ok(seen(key, appended.version, appended))
    }

    async fn append_many(
        &self,
        tenant: &TenantId,
        requests: Vec<(ContextId, AppendRequest)>,
    ) -> Answer<Vec<Result<Appended>>> {
        let ids: Vec<ContextId> = requests.iter().map(|(id, _)| id.clone()).collect();
        let outcomes = many::append(self.store.as_ref(), &self.hints, &self.limits, tenant, requests).await;
        for (id, outcome) in ids.iter().zip(&outcomes) {
            if let Ok(appended) = outcome {
                let key = (tenant, id).into();
                note(&key, appended.version);
                if appended.over_budget {
                    self.is_over_budget(&key);
                }
            }
        }
        answer(outcomes)
    }

    async fn replace(&self, key: &ContextKey, request: AppendRequest) -> Result<Answer<Appended>> {
        let appended = self.counted(key, request, Write::Replace).await?;
        Ok(seen(key, appended.version, appended))
    }

    async fn truncate(&self, key: &ContextKey, request: TruncateRequest) -> Result<Answer<Truncation>> {
        // What is dropped is chosen by reading; an old copy would choose for a version that is gone.
        let done = Session::strong(self.truncated(key, request)).await?;
        Ok(seen(key, done.context.version, done))
    }

    async fn fork(&self, key: &ContextKey, at: Option<Seq>, new: NewContext) -> Result<Answer<Created>> {
        new.validate()?;
        let created = self.store.fork(key, at.unwrap_or(Seq::MAX), new).await?;
        let fork = ContextKey::new(key.tenant.clone(), created.context.id.clone());
        Ok(seen(&fork, created.context.version, created))
    }

    async fn items(&self, key: &ContextKey, query: ItemQuery) -> Result<Answer<ItemPage>> {
        let page = self.store.items(key, query).await?;
        Ok(seen(key, page.version, page))
    }

    async fn window(&self, key: &ContextKey, request: WindowRequest) -> Result<Answer<Arc<Window>>> {
        let window = self.shown(key, request).await?;
        Ok(seen(key, window.version, Arc::new(window)))
    }

    async fn summary(&self, key: &ContextKey, request: SummaryRequest) -> Result<Answer<Option<Summary>>> {
        let (context, summary) = Session::strong(self.summarised(key, request)).await?;
        Ok(seen(key, context.version, summary))
    }

    async fn put_summary(&self, key: &ContextKey, put: PutSummary) -> Result<Answer<Summary>> {
        let (context, summary) = Session::strong(self.supplied(key, put)).await?;
        Ok(seen(key, context.version, summary))
    }

    async fn list(&self, tenant: &TenantId, query: ListQuery) -> Result<Answer<ContextPage>> {
        if query.labels.len() > LABELS_MAX {
            let problem = format!("is given {} times", query.labels.len());
            return Err(Invalid::new("label", problem)
                .hint(format!("no context has more than {LABELS_MAX} labels"))
                .into());
        }
        let page = self.store.list(tenant, query).await?;
        // A head from memory is measured by versions only, and may not be older than what was listed (G4).
        for context in &page.contexts {
            note(&(tenant, &context.id).into(), context.version);
        }
        Ok(answer(page))
    }

    async fn search(&self, tenant: &TenantId, query: SearchQuery) -> Result<Answer<SearchPage>> {
        check_times(query.since, query.until)?;
        self.store.search(tenant, query).await.map(answer)
    }

    async fn search_semantic(&self, tenant: &TenantId, query: SemanticQuery) -> Result<Answer<SemanticPage>> {
        check_times(query.since, query.until)?;
        let semantic = self.semantic.as_ref().ok_or_else(semantic::not_configured)?;
        let page = semantic.search(self.store.as_ref(), tenant, query).await;
        page.map(answer)
    }

    async fn check(&self) -> Result<StoreHealth> {
        self.store.check().await
    }
}

/// The two ways to write items.
#[derive(Clone, Copy, Debug)]
enum Write {
    Append,
    Replace,
}

/// An answer with the origin that the store named.
fn answer<T>(value: T) -> Answer<T> {
    let origin = Session::current().and_then(|session| session.origin());
    Answer {
        value,
        origin: origin.unwrap_or(Origin::Primary),
    }
}

/// As [`answer`], with the version noted in the session (Q1).
pub(crate) fn seen<T>(key: &ContextKey, version: Version, value: T) -> Answer<T> {
    note(key, version);
    answer(value)
}

fn note(key: &ContextKey, version: Version) {
    // Outside of every session there is nobody to tell.
    Session::with_current(|session| session.saw(key, version));
}

fn check_times(since: Option<Timestamp>, until: Option<Timestamp>) -> Result<()> {
    match (since, until) {
        (Some(since), Some(until)) if since >= until => {
            Err(Invalid::new("until", format!("is not after since, {since}"))
                .hint("since is the first moment that counts, until the first that does not")
                .into())
        }
        _ => Ok(()),
    }
}

fn refuse_empty(items: &[NewItem]) -> Result<()> {
    if items.is_empty() {
        return Err(Invalid::new("items", "is empty")
            .hint("send at least one item")
            .into());
    }
    Ok(())
}

/// Whether one write may have these items.
fn check(items: &[NewItem], limits: &LimitSettings) -> Result<()> {
    if let Some((index, id)) = repeated_client_id(items) {
        let problem = format!("{:?} names two items of this append", id.as_str());
        return Err(Invalid::new(format!("items[{index}].client_id"), problem).into());
    }
    if items.len() > limits.append_items {
        return Err(Error::TooLarge {
            what: "an append in items".into(),
            actual: items.len() as u64,
            limit: limits.append_items as u64,
        });
    }
    Ok(())
}

async fn count(mut items: Vec<NewItem>, tokenizer: Tokenizer) -> Result<Vec<NewItem>> {
    let bytes = text_bytes(&items);
    let counting = off_the_reactor(bytes, move || {
        count_all(&mut items, tokenizer);
        items
    });
    timed(Stage::Tokens, counting).await
}

fn text_bytes(items: &[NewItem]) -> usize {
    items.iter().map(|item| item.text().len()).sum()
}

fn count_all(items: &mut [NewItem], tokenizer: Tokenizer) {
    for item in items {
        item.count(tokenizer);
    }
}

fn changing() -> Error {
    Error::internal("the context's tokenizer changed three times during one append")
}

fn fingerprint(key: IdempotencyKey, write: Write, items: &[NewItem]) -> Idempotency {
    let mut hash = Sha256::new();
    hash.update([write as u8]);
    for item in items {
        hash.update((item.body.len() as u64).to_le_bytes());
        hash.update(item.body.as_bytes());
    }
    Idempotency {
        key,
        fingerprint: hash.finalize().into(),
    }
}
