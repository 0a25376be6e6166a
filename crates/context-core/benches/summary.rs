//! What a summary keeps of what a window leaves out:
//! `cargo bench -p contextkeep-core --bench summary -- TRANSCRIPTS`, a file of `OpenAI` chat lines.
//!
//! Conversations are put behind each other, several to a context, until a window of [`BUDGET`] tokens leaves a good part
//! out. Of the omitted range, three texts of the same number of tokens are compared: the extractive summary, the first and
//! last tokens of what was said, and the last ones alone. Counted are the different pieces with a digit and at least three
//! characters (ids, amounts, dates) that a text has of those in the range, once of all and once of those that somebody
//! said, results of tools left aside. The pieces are cut out here in another way than the summary does it.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use contextkeep_core::embedded::EmbeddedStore;
use contextkeep_core::item::searchable_text;
use contextkeep_core::settings::{EmbeddedSettings, LimitSettings};
use contextkeep_core::store::{ItemQuery, Order};
use contextkeep_core::summary::extract;
use contextkeep_core::{
    AppendRequest, ContextKey, ContextManager, Item, NewContext, NewItem, Role, Seq, StandardContextManager,
    SystemClock, TenantId, Tokenizer, WindowRequest,
};

/// The budget of the windows, in tokens.
const BUDGET: u64 = 8000;
/// Conversations in a context.
const TOGETHER: usize = 5;
const TOKENIZER: Tokenizer = Tokenizer::O200kBase;

#[tokio::main]
async fn main() {
    let Some(path) = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"))
    else {
        println!("summary: name a file of OpenAI chat lines to have figures");
        return;
    };
    let file = std::fs::read_to_string(path).unwrap();
    let conversations: Vec<&str> = file.lines().collect();
    let folder = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings {
        path: folder.path().to_owned(),
        ..EmbeddedSettings::default()
    };
    let store = Arc::new(EmbeddedStore::open(&settings, Arc::new(SystemClock)).unwrap());
    let manager = StandardContextManager::new(store, LimitSettings::default());
    let (mut all, mut told, mut tokens, mut contexts) = ([0; 4], [0; 4], 0, 0);
    for together in conversations.chunks(TOGETHER) {
        let omitted = omitted(&manager, items_of(together)).await;
        if omitted.is_empty() {
            continue;
        }
        contexts += 1;
        let summary = extract(None, &omitted, TOKENIZER);
        let size = TOKENIZER.count(&summary);
        tokens += u64::from(size);
        let text: String = omitted
            .iter()
            .map(|item| searchable_text(&item.body) + "\n")
            .collect();
        let said: String = omitted
            .iter()
            .filter(|item| item.traits.role != Role::Tool)
            .map(|item| searchable_text(&item.body) + "\n")
            .collect();
        let ends = beginning(&text, size / 2) + "\n" + &ending(&text, size - size / 2);
        let texts = [text.clone(), summary, ends, ending(&text, size)];
        for (sums, wanted) in [(&mut all, facts(&text)), (&mut told, facts(&said))] {
            for (sum, text) in sums.iter_mut().zip(&texts) {
                *sum += facts(text).intersection(&wanted).count();
            }
        }
    }
    println!(
        "{contexts} contexts of {TOGETHER} conversations, window {BUDGET} tokens, {tokens} tokens of summaries"
    );
    for (name, [there, summary, ends, end]) in [("all", all), ("said", told)] {
        println!("{name}: {there} ids, amounts and dates in the omitted ranges");
        for (text, kept) in [
            ("summary", summary),
            ("first and last tokens", ends),
            ("last tokens", end),
        ] {
            #[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
            let share = 100.0 * kept as f64 / there.max(1) as f64;
            println!("  {text}: {kept}, {share:.1} %");
        }
    }
}

/// The items of several conversations, as one context has them. Instructions stand in it once.
fn items_of(conversations: &[&str]) -> Vec<NewItem> {
    let mut items: Vec<NewItem> = Vec::new();
    for (number, conversation) in conversations.iter().enumerate() {
        let conversation: serde_json::Value = serde_json::from_str(conversation).unwrap();
        for message in conversation["messages"].as_array().unwrap() {
            let item = NewItem::parse(&message.to_string(), 1 << 24).unwrap();
            if number == 0 || !item.traits.role.is_instruction() {
                items.push(item);
            }
        }
    }
    items
}

/// What a window of a context with these items leaves out.
async fn omitted(manager: &StandardContextManager, items: Vec<NewItem>) -> Vec<Item> {
    let tenant = TenantId::parse("bench").unwrap();
    let created = manager
        .create(&tenant, NewContext::of_agent("bench"))
        .await
        .unwrap();
    let key = ContextKey::new(tenant, created.value.context.id);
    let request = AppendRequest {
        items,
        expected: None,
        idempotency_key: None,
    };
    manager.append(&key, request).await.unwrap();
    let request = WindowRequest {
        max_tokens: Some(BUDGET),
        ..WindowRequest::default()
    };
    let window = manager.window(&key, request).await.unwrap().value;
    let shown: BTreeSet<Seq> = window.items.iter().map(|item| item.seq).collect();
    let query = ItemQuery {
        after: 0,
        before: Seq::MAX,
        order: Order::Ascending,
        limit: 10_000,
        bytes_max: u64::MAX,
    };
    let page = manager.items(&key, query).await.unwrap().value;
    page.items
        .into_iter()
        .filter(|item| !shown.contains(&item.seq))
        .collect()
}

/// Different pieces with a digit and at least three characters.
fn facts(text: &str) -> BTreeSet<String> {
    let inside = |character: char| character.is_alphanumeric() || "$€£_-/.:@".contains(character);
    text.split(|character| !inside(character))
        .map(|piece| piece.trim_matches(|character| ".:-/".contains(character)))
        .filter(|piece| piece.chars().count() >= 3 && piece.chars().any(|c| c.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}

/// As many characters of the beginning as have at most so many tokens.
fn beginning(text: &str, tokens: u32) -> String {
    longest(
        text.chars().count(),
        |length| text.chars().take(length).collect(),
        tokens,
    )
}

/// As many characters of the end as have at most so many tokens.
fn ending(text: &str, tokens: u32) -> String {
    let all = text.chars().count();
    longest(all, |length| text.chars().skip(all - length).collect(), tokens)
}

fn longest(all: usize, piece: impl Fn(usize) -> String, tokens: u32) -> String {
    let (mut fits, mut too_long) = (0, all + 1);
    while too_long - fits > 1 {
        let middle = fits.midpoint(too_long);
        if TOKENIZER.count(&piece(middle)) <= tokens {
            fits = middle;
        } else {
            too_long = middle;
        }
    }
    piece(fits)
}
