//! Tokenizers of the operator's: by name, counted when items come, and missed by name when they are gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Folder, Start, folder};

/// Each of these words is a token, and so is anything else between blanks.
fn write(folder: &Path) -> PathBuf {
    let words = ["[UNK]", "the", "cat"];
    let vocabulary: BTreeMap<&str, usize> = words.into_iter().zip(0..).collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    });
    let path = folder.join("words.json");
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

fn config(file: &Path) -> String {
    format!(
        "context_manager: {{ tokenizers: {{ my-words: '{}' }} }}",
        file.display()
    )
}

#[test]
fn a_context_counts_with_the_operators_tokenizer_and_outlives_it() {
    let folder = folder();
    let file = write(folder.path());
    let start = |text: &str| Start::with(text).up(Folder::Shared(folder.path().to_owned()));
    let server = start(&config(&file));
    let client = server.client();
    let new = r#"{"id": "c", "agent_id": "a", "tokenizer": "my-words"}"#;
    assert_eq!(client.post("/v1/contexts", new).ok()["tokenizer"], "my-words");
    let item = r#"{"items": [{"role": "user", "content": "the cat sat on the mat"}]}"#;
    let appended = client.post("/v1/contexts/c/items", item).ok();
    // Six words and what a message costs.
    assert_eq!(appended["tokens"], 10);
    let unknown = r#"{"id": "d", "agent_id": "a", "tokenizer": "my-wrods"}"#;
    client.post("/v1/contexts", unknown).problem(422, "invalid");
    let window = client.get("/v1/contexts/c/window").ok();
    assert!(!window["reasons"].to_string().contains("estimated"), "{window}");
    server.terminate();
    server.wait();

    let server = start("");
    let client = server.client();
    let window = client.get("/v1/contexts/c/window").ok();
    assert_eq!(
        (&window["tokens"], window["items"].as_array().unwrap().len()),
        (&json!(10), 1)
    );
    let refused = client
        .post("/v1/contexts/c/items", item)
        .problem(409, "tokenizer_missing");
    assert!(refused.to_string().contains("my-words"), "{refused}");
    client.post("/v1/contexts", unknown).problem(422, "invalid");
    assert_eq!(client.get("/v1/contexts/c").ok()["item_count"], 1);
    server.terminate();
    server.wait();

    let server = start(&config(&file));
    assert_eq!(
        server.client().post("/v1/contexts/c/items", item).ok()["last_seq"],
        2,
        "and goes on"
    );
}

#[test]
fn a_file_that_is_missing_or_broken_is_named_at_the_start() {
    let folder = folder();
    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{}").unwrap();
    for file in [broken, folder.path().join("none.json")] {
        let (status, said) = Start::with(&config(&file)).refused(folder.path());
        assert!(!status.success());
        assert!(said.contains("context_manager.tokenizers"), "{said}");
        assert!(
            said.contains("my-words") && said.contains(file.to_str().unwrap()),
            "{said}"
        );
    }
    let clash = format!(
        "context_manager: {{ tokenizers: {{ o200k_base: '{}' }} }}",
        write(folder.path()).display()
    );
    let (status, said) = Start::with(&clash).refused(folder.path());
    assert!(!status.success() && said.contains("built in"), "{said}");
}
