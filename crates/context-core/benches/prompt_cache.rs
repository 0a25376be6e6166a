//! What of a prompt a provider's cache can reuse: real conversations, replayed call by call at several budgets, with the
//! sticky cut, with a plain sliding window (the tight cut) and with the oldest items dropped one by one.
//!
//! `cargo bench -p contextkeep-core --bench prompt_cache -- transcripts.jsonl`, each line `{"id", "messages": […]}` in the
//! chat format. Prints shares, no times, so it runs the same on any machine.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use contextkeep_core::store::Tail;
use contextkeep_core::window::{self, Cut};
use contextkeep_core::{Context, ContextId, Item, NewContext, NewItem, Role, Timestamp, Tokenizer};
use serde_json::Value;

const BUDGETS: [u64; 4] = [4096, 8192, 16_384, 32_768];
const BODY_BYTES_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    let path = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let Some(path) = path else {
        let usage = "cargo bench -p contextkeep-core --bench prompt_cache -- transcripts.jsonl\n";
        return say(usage);
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            say(&format!("{path}: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    let conversations: Vec<Vec<Item>> = text.lines().map(conversation).collect();
    let one = joined(&conversations);
    let mut out = String::new();
    report(&mut out, "each conversation by itself", &conversations);
    report(
        &mut out,
        "all of them, one after the other, in one context",
        &[one],
    );
    say(&out)
}

fn say(text: &str) -> ExitCode {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn conversation(line: &str) -> Vec<Item> {
    let line: Value = serde_json::from_str(line).expect("a line is JSON");
    let messages = line["messages"].as_array().expect("a line has messages");
    let items = messages.iter().zip(1..).map(|(message, seq)| {
        let mut new = NewItem::parse(&message.to_string(), BODY_BYTES_MAX).expect("a message is an item");
        new.count(Tokenizer::O200kBase);
        Item {
            seq,
            tokens: new.tokens,
            created_at: Timestamp::default(),
            traits: new.traits,
            body: new.body,
        }
    });
    items.collect()
}

/// One long conversation, with the instructions of the first.
fn joined(conversations: &[Vec<Item>]) -> Vec<Item> {
    let rest = conversations.iter().skip(1).flatten();
    let rest = rest.filter(|item| !item.traits.role.is_instruction());
    let all = conversations.iter().take(1).flatten().chain(rest).cloned();
    all.zip(1..).map(|(item, seq)| Item { seq, ..item }).collect()
}

#[derive(Clone, Copy)]
enum Rule {
    Window(Cut),
    OldestItemsDropped,
}

const RULES: [(&str, Rule); 3] = [
    ("sticky cut", Rule::Window(Cut::Sticky)),
    ("sliding window", Rule::Window(Cut::Tight)),
    ("oldest items dropped", Rule::OldestItemsDropped),
];

/// What the prompts of a replay came to.
#[derive(Default)]
struct Totals {
    /// Prompts that did not have room for everything.
    cut: u64,
    /// Their tokens, and those of them that the prompt before began with.
    tokens: u64,
    reused: u64,
    /// Those whose beginning was not the prompt before.
    moved: u64,
    fill: f64,
    too_small: u64,
    orphans: u64,
}

fn report(out: &mut String, title: &str, conversations: &[Vec<Item>]) {
    let tokens: u64 = conversations.iter().flatten().map(tokens_of).sum();
    writeln!(
        out,
        "\n{title}: {} conversations, {tokens} tokens\n",
        conversations.len()
    )
    .expect("writing to a String");
    out.push_str("| budget | rule | prompts over budget | reused | beginning changed | filled | results without call |\n");
    out.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    for budget in BUDGETS {
        for (name, rule) in RULES {
            let mut totals = Totals::default();
            for conversation in conversations {
                replay(conversation, budget, rule, &mut totals);
            }
            row(out, budget, name, &totals);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shares for people to read")]
fn row(out: &mut String, budget: u64, name: &str, totals: &Totals) {
    let share = |part: f64, whole: u64| 100.0 * part / whole.max(1) as f64;
    writeln!(
        out,
        "| {budget} | {name} | {} | {:.1} % | {:.1} % | {:.1} % | {} |",
        totals.cut,
        share(totals.reused as f64, totals.tokens),
        share(totals.moved as f64, totals.cut),
        share(totals.fill, totals.cut),
        totals.orphans,
    )
    .expect("writing to a String");
}

/// The prompt before each message of the model, beside the one before that.
#[expect(clippy::cast_precision_loss, reason = "shares for people to read")]
fn replay(items: &[Item], budget: u64, rule: Rule, totals: &mut Totals) {
    let mut before: Vec<Item> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if item.traits.role != Role::Assistant {
            continue;
        }
        let history = &items[..index];
        let Some(prompt) = prompt(history, budget, rule) else {
            totals.too_small += 1;
            continue;
        };
        if prompt.len() < history.len() {
            let same = prompt.iter().zip(&before).take_while(|(now, then)| now == then);
            let same: Vec<u64> = same.map(|(now, _)| tokens_of(now)).collect();
            let size: u64 = prompt.iter().map(tokens_of).sum();
            totals.cut += 1;
            totals.tokens += size;
            totals.reused += same.iter().sum::<u64>();
            totals.moved += u64::from(same.len() < before.len());
            totals.fill += size as f64 / budget as f64;
            totals.orphans += orphans(&prompt);
        }
        before = prompt;
    }
}

fn orphans(prompt: &[Item]) -> u64 {
    let calls: HashSet<&String> = prompt.iter().flat_map(|item| &item.traits.links.calls).collect();
    let results = prompt.iter().flat_map(|item| &item.traits.links.results);
    results.filter(|result| !calls.contains(result)).count() as u64
}

fn prompt(history: &[Item], budget: u64, rule: Rule) -> Option<Vec<Item>> {
    match rule {
        Rule::Window(cut) => {
            let window = window::assemble(tail(history, budget), budget, cut).ok()?;
            Some(window.items)
        }
        Rule::OldestItemsDropped => {
            let mut excess = history.iter().map(tokens_of).sum::<u64>().saturating_sub(budget);
            let kept = history.iter().filter(|item| {
                let drop = excess > 0 && !item.traits.always_kept();
                if drop {
                    excess = excess.saturating_sub(tokens_of(item));
                }
                !drop
            });
            let kept = kept.cloned().collect();
            (excess == 0).then_some(kept)
        }
    }
}

/// What a store reads.
fn tail(history: &[Item], budget: u64) -> Tail {
    let mut left = budget;
    let fits = |item: &&Item| {
        let rest = left.checked_sub(tokens_of(item));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    let count = history.iter().rev().take_while(fits).count();
    let (older, run) = history.split_at(history.len() - count);
    Tail {
        context: context(history),
        kept: older
            .iter()
            .filter(|item| item.traits.always_kept())
            .cloned()
            .collect(),
        run: run.to_vec(),
        before: older.last().map(|item| item.traits.kind),
    }
}

fn context(history: &[Item]) -> Context {
    let id = ContextId::parse("replay").expect("an id");
    let mut context = NewContext::of_agent("replay").into_context(id, Timestamp::default());
    context.item_count = history.len() as u64;
    context.next_seq = context.item_count + 1;
    context.tokens = history.iter().map(tokens_of).sum();
    context
}

fn tokens_of(item: &Item) -> u64 {
    u64::from(item.tokens)
}
