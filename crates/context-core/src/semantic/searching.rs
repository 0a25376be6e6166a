//! What is nearest to a question, by itself or together with what has its words.

use std::time::Duration;

use super::fusion::fused;
use super::{Direction, Fault, Inner, NearestPage, NearestQuery, Semantic};
use crate::error::{Error, Invalid, Result};
use crate::id::{ContextId, TenantId};
use crate::search::Query;
use crate::store::{ContextStore, Hit, SearchPage, SearchQuery};
use crate::{Role, Timestamp};

/// Longest question, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// The best so many by words and by meaning are put together, and pages go no further than these.
const FUSED: u32 = 100;
/// When to try again if the embedder did not say.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// What [`SemanticPage::degraded`] says when the embedder did not answer.
pub const DEGRADED: &str = "embedder_unavailable";

/// A search by meaning.
#[derive(Clone, Debug)]
pub struct SemanticQuery {
    /// The question, in anybody's words; with `hybrid` in the language of [`Query`].
    pub text: String,
    /// Also by words; the best of both are put together.
    pub hybrid: bool,
    /// Only in this context; `NotFound` if it is not there.
    pub context: Option<ContextId>,
    /// Only items of this role.
    pub role: Option<Role>,
    /// Only items acknowledged at this time or later.
    pub since: Option<Timestamp>,
    /// Only items acknowledged before this time.
    pub until: Option<Timestamp>,
    /// Skip so many hits.
    pub offset: u32,
    /// Most hits.
    pub limit: u32,
}

/// A page of hits by meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct SemanticPage {
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// Whether there are more.
    pub more: bool,
    /// Acknowledged items that cannot be found yet.
    pub lag_items: u64,
    /// The embedder's model.
    pub model: String,
    /// Items that the question was compared with.
    pub scanned: u64,
    /// Whether there were more, older ones, that it was not compared with.
    pub cut_off: bool,
    /// [`DEGRADED`] if the answer is one by words alone.
    pub degraded: Option<&'static str>,
}

impl SemanticQuery {
    fn by(&self, query: Query, offset: u32, limit: u32) -> SearchQuery {
        SearchQuery {
            query,
            context: self.context.clone(),
            role: self.role,
            since: self.since,
            until: self.until,
            offset,
            limit,
        }
    }
}

/// No embedder is configured.
pub(crate) fn not_configured() -> Error {
    Invalid::new("mode", "needs an embedder, and none is configured")
        .hint("set context_manager.semantic.endpoint, .model and .dimensions, or search by text")
        .into()
}

impl Semantic {
    /// A page of hits.
    ///
    /// # Errors
    /// `Invalid` on `query`; `NotFound`; [`Error::EmbedderUnavailable`], unless the query is a hybrid one, which is then
    /// answered by words.
    pub(crate) async fn search(
        &self,
        words: &dyn ContextStore,
        tenant: &TenantId,
        query: SemanticQuery,
    ) -> Result<SemanticPage> {
        check(&query.text)?;
        if query.hybrid {
            return self.0.hybrid(words, tenant, query).await;
        }
        let search = query.by(Query::any_word_of(&query.text), query.offset, query.limit);
        let direction = self.0.direction(&query.text).await?;
        let page = self.0.nearest(tenant, direction, search).await?;
        Ok(SemanticPage {
            hits: page.hits,
            more: page.more,
            lag_items: page.lag_items,
            model: self.0.model.name.to_string(),
            scanned: page.scanned,
            cut_off: page.cut_off,
            degraded: None,
        })
    }
}

impl Inner {
    async fn hybrid(
        &self,
        words: &dyn ContextStore,
        tenant: &TenantId,
        query: SemanticQuery,
    ) -> Result<SemanticPage> {
        let parsed = Query::parse(&query.text)?;
        let by_words = words.search(tenant, query.by(parsed, 0, FUSED));
        let by_meaning = async {
            match self.direction(&query.text).await {
                Ok(direction) => {
                    let search = query.by(Query::any_word_of(&query.text), 0, FUSED);
                    self.nearest(tenant, direction, search).await.map(Some)
                }
                Err(error @ Error::EmbedderUnavailable { .. }) => {
                    tracing::debug!(%error, "a hybrid search is answered by words alone");
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        let (by_words, by_meaning) = tokio::try_join!(by_words, by_meaning)?;
        Ok(self.put_together(&query, by_words, by_meaning))
    }

    fn put_together(
        &self,
        query: &SemanticQuery,
        by_words: SearchPage,
        by_meaning: Option<NearestPage>,
    ) -> SemanticPage {
        let degraded = by_meaning.is_none().then_some(DEGRADED);
        let by_meaning = by_meaning.unwrap_or(NearestPage {
            hits: Vec::new(),
            more: false,
            scanned: 0,
            cut_off: false,
            lag_items: 0,
        });
        let hits = fused(by_words.hits, by_meaning.hits);
        let (offset, limit) = (query.offset as usize, query.limit as usize);
        SemanticPage {
            more: hits.len() > offset + limit,
            hits: hits.into_iter().skip(offset).take(limit).collect(),
            lag_items: by_words.lag_items.max(by_meaning.lag_items),
            model: self.model.name.to_string(),
            scanned: by_meaning.scanned,
            cut_off: by_meaning.cut_off,
            degraded,
        }
    }

    async fn nearest(
        &self,
        tenant: &TenantId,
        direction: Direction,
        search: SearchQuery,
    ) -> Result<NearestPage> {
        let query = NearestQuery {
            model: self.model.clone(),
            direction,
            search,
            scan_max: self.limits.scan_max,
        };
        self.vectors.nearest(tenant, query).await
    }

    async fn direction(&self, text: &str) -> Result<Direction> {
        let vectors = self.asked(&[text.trim()]).await?;
        let direction = vectors.first().and_then(|vector| Direction::of(vector));
        direction.ok_or_else(|| Fault::Unusable("the question's vector has no direction".into()).into())
    }

    /// Asks the embedder, and takes only what the port says that it answers.
    pub(super) async fn asked(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Fault> {
        let vectors = self.embedder.embed(texts).await?;
        if vectors.len() != texts.len() {
            let problem = format!("{} vectors for {} texts", vectors.len(), texts.len());
            return Err(Fault::Unusable(problem));
        }
        let dimensions = usize::from(self.model.dimensions);
        if let Some(other) = vectors.iter().find(|vector| vector.len() != dimensions) {
            let problem = format!(
                "a vector of {} dimensions; {dimensions} are configured",
                other.len()
            );
            return Err(Fault::Unusable(problem));
        }
        Ok(vectors)
    }
}

fn check(text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Invalid::new("query", "is empty")
            .hint("say what to look for")
            .into());
    }
    if text.len() > TEXT_BYTES_MAX {
        let problem = format!("is {} bytes long; the limit is {TEXT_BYTES_MAX}", text.len());
        return Err(Invalid::new("query", problem).into());
    }
    Ok(())
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::EmbedderUnavailable {
            retry_after: fault.retry_after().unwrap_or(RETRY_AFTER),
            detail: fault.to_string(),
        }
    }
}
