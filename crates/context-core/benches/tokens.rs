//! Token counts in numbers: `cargo bench -p contextkeep-core --no-default-features --features tokenizers --bench tokens`.
//!
//! Ours and `bpe-openai`'s own count take turns on the same text in one run; the fastest round of each and their ratio are printed, which other work on the machine disturbs least. With
//! an argument that is a file of JSON lines, every string in it is counted too, and compared. `one ours N`
//! and `one theirs N` count `N` short items and end: for `valgrind --tool=callgrind`, where the difference of two such
//! runs is what counting costs without loading.
#![expect(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program that prints, and stops at a surprise"
)]

use std::hint::black_box;
use std::time::Duration;

use contextkeep_core::Tokenizer;
use tokio::time::Instant;

/// Rounds of each side, of long calls fewer.
const ROUNDS: usize = 61;
const ROUNDS_MIN: usize = 5;
const PATIENCE: Duration = Duration::from_secs(1);
/// What a round lasts at least.
const ROUND: Duration = Duration::from_millis(2);

const CHAT: &[&str] = &[
    "Hi! I'd like to change my flight from Boston to Denver next Tuesday.",
    "Sure, I can help with that. Could you please give me your reservation number and the date you would prefer?",
    "It's ZFA04Y, and Thursday the 23rd would work, but only if it isn't more than $50 extra.",
    "Thanks. The only seats left that day are in business class at $214; we'd have to charge the card ending in 7447.",
    "Hmm, that's too much. What about Friday morning? I don't mind a stopover, as long as I'm there by noon.",
    "ok",
    "There is a flight at 06:45 with one stop in Chicago, arriving at 10:20. The difference would be $12. Shall I book it?",
    "Yes please, and could you also add one checked bag? I think my membership is gold, so that should be free.",
];

const CODE: &str = r#"
/// Waits for the permit, at most until the deadline.
pub async fn admit(&self, deadline: Instant) -> Result<Permit<'_>, Rejected> {
    let Some(left) = deadline.checked_duration_since(Instant::now()) else {
        return Err(Rejected::Late { waited_ms: 0 });
    };
    match tokio::time::timeout(left, self.semaphore.acquire()).await {
        Ok(Ok(permit)) => Ok(Permit::new(permit)),
        Ok(Err(closed)) => Err(Rejected::from(closed)),
        Err(_elapsed) => Err(Rejected::Late { waited_ms: left.as_millis() as u64 }),
    }
}
def window(items, budget):
    total = 0
    for i, item in enumerate(reversed(items)):
        total += item["tokens"]
        if total > budget:
            return items[len(items) - i:]
    return items
"#;

const MARKDOWN: &str = "\
## Refund policy\n\n- **Basic economy** tickets can be cancelled within *24 hours* of booking.\n- After that, a fee of `$75` \
applies; see [the table](https://example.com/fees#basic).\n\n| class | fee | refund |\n| --- | ---: | :---: |\n| basic | \
75.00 | no |\n| business | 0.00 | yes |\n\n```json\n{\"reservation_id\": \"ZFA04Y\", \"cabin\": \"business\", \"flights\": \
[{\"flight_number\": \"HAT136\", \"date\": \"2024-05-23\", \"price\": 214}]}\n```\n\n> Note: members do not pay for bags.\n";

const GERMAN: &str = "Guten Tag, ich möchte meine Buchung für übermorgen ändern: Statt München bräuchte ich einen Flug nach \
Zürich, möglichst früh am Vormittag. Können Sie mir außerdem sagen, ob das Gepäck für Vielflieger gebührenfrei ist?";

const JAPANESE: &str = "こんにちは。来週の火曜日にボストンからデンバーへのフライトを変更したいのですが、可能でしょうか。予約番号は\
ZFA04Yです。追加料金が五十ドル以内であれば、木曜日でも構いません。よろしくお願いいたします。";

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["one", "ours", times] => one(times, |text| Tokenizer::O200kBase.count(text) as usize),
        ["one", "theirs", times] => one(times, |text| bpe_openai::o200k_base().count(text)),
        [file] => {
            start();
            compare_file(file);
        }
        _ => {
            start();
            tables();
        }
    }
}

fn tables() {
    let chat: Vec<String> = CHAT.iter().map(|&text| text.to_owned()).collect();
    header("o200k_base and cl100k_base");
    compare("short chat items", &chat);
    compare("code", &[CODE.to_owned()]);
    compare("Markdown with JSON", &[MARKDOWN.to_owned()]);
    compare("German", &[GERMAN.to_owned()]);
    compare("Japanese", &[JAPANESE.to_owned()]);
    compare("words made up, none twice", &[made_up(2000, 5, " ")]);
    header("hostile, 64 KiB, then 1 MiB");
    for len in [1 << 16, 1 << 20] {
        for (name, unit) in [
            ("letters", "a"),
            ("spaces", " "),
            ("line breaks", " \n"),
            ("capitals", "A日"),
            ("emoji", "😀"),
        ] {
            compare(name, &[unit.repeat(len / unit.len())]);
        }
        compare("one random word", &[made_up(len / 16, 16, "")]);
    }
}

/// How long the first count of a process takes, of which loading the library's vocabulary is not ours.
fn start() {
    let begin = Instant::now();
    black_box(bpe_openai::o200k_base().count("a"));
    let library = begin.elapsed();
    let begin = Instant::now();
    black_box(Tokenizer::O200kBase.count("a"));
    let ours = begin.elapsed();
    let begin = Instant::now();
    black_box(Tokenizer::O200kBase.count("日"));
    println!(
        "first count: library {library:.1?}, ours besides {ours:.1?}, first character beyond ASCII {:.1?}",
        begin.elapsed()
    );
}

fn header(title: &str) {
    println!(
        "\n{title}\n{:28} {:>9} {:>11} {:>11} {:>8} {:>7}",
        "", "bytes", "library ns", "ours ns", "MB/s", "ratio"
    );
}

/// One line for each encoding.
fn compare(name: &str, texts: &[String]) {
    let bytes: usize = texts.iter().map(String::len).sum();
    for (tokenizer, library) in [
        (Tokenizer::O200kBase, bpe_openai::o200k_base()),
        (Tokenizer::Cl100kBase, bpe_openai::cl100k_base()),
    ] {
        for text in texts {
            assert_eq!(tokenizer.count(text) as usize, library.count(text.as_str()));
        }
        let mut theirs = || {
            texts
                .iter()
                .map(|text| library.count(black_box(text.as_str())))
                .sum()
        };
        let mut ours = || {
            texts
                .iter()
                .map(|text| tokenizer.count(black_box(text)) as usize)
                .sum()
        };
        let (theirs, ours) = fastest(&mut theirs, &mut ours);
        let each = texts.len() as f64;
        println!(
            "{name:28} {:>9} {:>11.0} {:>11.0} {:>8.0} {:>7.1}",
            bytes / texts.len(),
            theirs / each,
            ours / each,
            bytes as f64 / ours * 1e3,
            theirs / ours,
        );
    }
}

/// Nanoseconds of a call of each in its fastest round, the two taking turns.
fn fastest(left: &mut dyn FnMut() -> usize, right: &mut dyn FnMut() -> usize) -> (f64, f64) {
    let begin = Instant::now();
    let (mut lefts, mut rights) = (f64::MAX, f64::MAX);
    for done in 0..ROUNDS {
        if done >= ROUNDS_MIN && begin.elapsed() > PATIENCE {
            break;
        }
        lefts = lefts.min(round(left));
        rights = rights.min(round(right));
    }
    (lefts, rights)
}

fn round(call: &mut dyn FnMut() -> usize) -> f64 {
    let begin = Instant::now();
    let mut calls = 0;
    loop {
        black_box(call());
        calls += 1;
        let took = begin.elapsed();
        if took >= ROUND {
            return took.as_nanos() as f64 / f64::from(calls);
        }
    }
}

/// Words that are in no vocabulary.
fn made_up(words: usize, letters: usize, between: &str) -> String {
    let mut state = 1_u32;
    let mut text = String::new();
    for _ in 0..words {
        for _ in 0..letters {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push(char::from(b'a' + (state >> 27).min(25) as u8));
        }
        text.push_str(between);
    }
    text
}

fn one(times: &str, count: impl Fn(&str) -> usize) {
    let mut tokens = 0;
    for text in CHAT.iter().cycle().take(times.parse().unwrap()) {
        tokens += count(black_box(text));
    }
    println!("{tokens}");
}

fn compare_file(file: &str) {
    let mut texts = Vec::new();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        strings(&serde_json::from_str(line).unwrap(), &mut texts);
        texts.push(line.to_owned());
    }
    header(&format!("{} strings of a file, counts equal", texts.len()));
    compare("each", &texts);
}

fn strings(value: &serde_json::Value, into: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => into.push(text.clone()),
        serde_json::Value::Array(values) => values.iter().for_each(|value| strings(value, into)),
        serde_json::Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            into.push(key.clone());
            strings(value, into);
        }),
        _ => {}
    }
}
