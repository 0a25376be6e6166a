//! One summary, from what the store has to what is kept.

use super::Inner;
use crate::error::{Error, Result};
use crate::id::ContextKey;
use crate::store::{ItemQuery, Order, SeqRange};
use crate::summarising;
use crate::summary::{self, Draft, Drafting, Fault, Kind, Summariser, Summary, TEXT_BYTES_MAX};
use crate::{Context, Seq};

/// Items of one page of what is read.
const PAGE_ITEMS: u32 = 256;
/// Bytes of one page.
const PAGE_BYTES: u64 = 1024 * 1024;

/// What became of a wish.
#[derive(Debug)]
pub(super) enum Outcome {
    Kept,
    Needless,
    Outdated,
    NoModel(Fault),
    NoStore(Error),
}

/// What a model is to be asked, and what its answer is then a summary of.
struct Asked {
    draft: Draft,
    source: [u8; 32],
}

impl Inner {
    pub(super) async fn summarise(&self, key: &ContextKey, range: SeqRange) -> Outcome {
        let done = match &self.model {
            Some(model) => self.by_model(key, range, model.as_ref()).await,
            None => self.by_extraction(key, range).await,
        };
        match done {
            Ok(outcome) => outcome,
            // Deleted or truncated since it was wished.
            Err(Error::NotFound | Error::Invalid(_)) => Outcome::Outdated,
            Err(error) => Outcome::NoStore(error),
        }
    }

    async fn by_extraction(&self, key: &ContextKey, range: SeqRange) -> Result<Outcome> {
        let context = self.store.head(key).await?;
        summary::check(range, &context)?;
        let kept = self.store.summaries(key).await?;
        if kept.iter().any(|one| one.range == range) {
            return Ok(Outcome::Needless);
        }
        let made = summarising::stepwise(self.store.as_ref(), key, &context, range, &kept).await?;
        self.keep(key, &context, made).await
    }

    async fn by_model(&self, key: &ContextKey, range: SeqRange, model: &dyn Summariser) -> Result<Outcome> {
        let context = self.store.head(key).await?;
        summary::check(range, &context)?;
        let kept = self.store.summaries(key).await?;
        let better = |one: &&Summary| one.kind != Kind::Extractive;
        if kept.iter().filter(better).any(|one| one.range == range) {
            return Ok(Outcome::Needless);
        }
        let Some(asked) = self.draft(key, &context, range, &kept).await? else {
            return Ok(Outcome::Needless);
        };
        let text = match model.summarise(&asked.draft).await {
            Ok(text) => text,
            Err(fault) => return Ok(Outcome::NoModel(fault)),
        };
        let text = match usable(&text) {
            Ok(text) => text.to_owned(),
            Err(why) => return Ok(Outcome::NoModel(Fault::Unusable(why.to_owned()))),
        };
        let (tokenizer, limit) = (context.tokenizer, self.limits.max_output_tokens);
        let (text, tokens) = summarising::off_the_reactor(text.len(), move || {
            let text = summary::shortened(&text, limit, tokenizer);
            let tokens = tokenizer.count(&text);
            (text, tokens)
        })
        .await?;
        let made = Summary {
            kind: Kind::Model,
            range,
            text,
            tokens,
            source: asked.source,
            created_at: context.updated_at,
        };
        self.keep(key, &context, made).await
    }

    /// B4.
    async fn keep(&self, key: &ContextKey, context: &Context, made: Summary) -> Result<Outcome> {
        let text = made.text.clone();
        Ok(match self.store.keep_summary(key, made, context.stream).await? {
            Some(kept) if kept.text == text => Outcome::Kept,
            Some(_) => Outcome::Needless,
            None => Outcome::Outdated,
        })
    }

    /// B3; `None` if there is nothing to say.
    async fn draft(
        &self,
        key: &ContextKey,
        context: &Context,
        range: SeqRange,
        kept: &[Summary],
    ) -> Result<Option<Asked>> {
        let former = kept
            .iter()
            .filter(|one| one.kind != Kind::Extractive)
            .filter(|one| one.range.first == range.first && one.range.last < range.last)
            .max_by_key(|one| (one.range.last, one.kind));
        let from = former.map_or(range.first, |former| former.range.last + 1);
        let drafting = self.newest(key, context, from, range.last).await?;
        let between = match drafting.oldest() {
            Some(oldest) if drafting.is_full() && oldest > from => Some(SeqRange {
                first: from,
                last: oldest - 1,
            }),
            None if drafting.is_full() => Some(SeqRange {
                first: from,
                last: range.last,
            }),
            _ => None,
        };
        if drafting.is_empty() && between.is_none() {
            return Ok(None);
        }
        let between = match between {
            Some(between) => {
                Some(summarising::stepwise(self.store.as_ref(), key, context, between, kept).await?)
            }
            None => None,
        };
        let before: Vec<&Summary> = former.into_iter().chain(&between).collect();
        let source = summary::source_hash(before.last().map(|before| before.source), &drafting.items());
        let texts: Vec<String> = before.iter().map(|before| before.text.clone()).collect();
        let bytes = texts.iter().map(String::len).sum();
        let draft = summarising::off_the_reactor(bytes, move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            drafting.finish(&texts)
        })
        .await?;
        Ok(Some(Asked { draft, source }))
    }

    /// The newest items of `from..=last` that there is room for.
    async fn newest(&self, key: &ContextKey, context: &Context, from: Seq, last: Seq) -> Result<Drafting> {
        let mut drafting = Drafting::new(&self.limits, context.tokenizer);
        let mut before = last + 1;
        loop {
            let page = self
                .store
                .items(
                    key,
                    ItemQuery {
                        after: from - 1,
                        before,
                        order: Order::Descending,
                        limit: PAGE_ITEMS,
                        bytes_max: PAGE_BYTES,
                    },
                )
                .await?;
            let Some(oldest) = page.items.last().map(|item| item.seq) else {
                return Ok(drafting);
            };
            before = oldest;
            let bytes = page.items.iter().map(|item| item.body.len()).sum();
            drafting = summarising::off_the_reactor(bytes, move || {
                drafting.take(page.items);
                drafting
            })
            .await?;
            if drafting.is_full() || !page.more {
                return Ok(drafting);
            }
        }
    }
}

/// A model's answer, if it is one that can be kept.
fn usable(text: &str) -> Result<&str, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err("it is longer than 64 KiB");
    }
    if text.contains('\0') {
        return Err("it has a NUL character, which no database stores as text");
    }
    Ok(text)
}

const _: () = assert!(TEXT_BYTES_MAX == 64 * 1024, "the message says so");
