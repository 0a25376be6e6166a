//! Data files and folders that are not what they should be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::{Server, Start, eventually, folder, run, run_ok, text};

/// Bytes of a page of the data file.
const PAGE: usize = 8192;

/// The data file below a test's folder.
fn data_file(folder: &Path) -> PathBuf {
    folder.join("data").join("contextkeep.db")
}

/// Writes a data file before the first start.
fn plant(folder: &Path, bytes: &[u8]) {
    fs::create_dir(folder.join("data")).unwrap();
    fs::write(data_file(folder), bytes).unwrap();
}

/// A start that must fail with exit code 1 and these words.
fn assert_refused(folder: &Path, words: &[&str]) -> String {
    let (status, log) = Start::default().refused(folder);
    assert_eq!(status.code(), Some(1), "{log}");
    for word in words {
        assert!(log.contains(word), "{word:?} is not in:\n{log}");
    }
    assert!(!log.contains("panicked"), "{log}");
    log
}

/// A data folder with one context `c` of `items` items, closed.
fn filled(items: usize) -> tempfile::TempDir {
    let folder = folder();
    let server = Server::in_folder(folder.path());
    fill(&server.client(), "c", items, 100);
    eventually("the index catches up", || {
        (server.client().get("/readyz").ok()["search_lag_items"] == 0).then_some(())
    });
    server.stop();
    folder
}

fn fill(client: &Client, id: &str, items: usize, bytes: usize) {
    client
        .post("/v1/contexts", json!({"id": id, "agent_id": "a"}).to_string())
        .ok();
    let items: Vec<Value> = (0..items)
        .map(|n| json!({"role": "user", "content": format!("{n} {}", "x".repeat(bytes))}))
        .collect();
    for chunk in items.chunks(1000) {
        let body = json!({ "items": chunk }).to_string();
        client.post(&format!("/v1/contexts/{id}/items"), body).ok();
    }
}

#[test]
fn a_file_of_random_bytes_is_refused_and_left_alone() {
    let folder = folder();
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    plant(folder.path(), &noise);
    assert_refused(folder.path(), &["contextkeep.db", "damaged", "keep a copy"]);
    assert_eq!(fs::read(data_file(folder.path())).unwrap(), noise);
    let doctor = run(folder.path(), &["doctor"], b"");
    assert_eq!(doctor.status.code(), Some(1));
    assert!(text(&doctor.stdout).contains("FAIL"), "{}", text(&doctor.stdout));
}

#[test]
fn a_truncated_file_is_refused_or_reported() {
    let folder = filled(2000);
    let whole = fs::read(data_file(folder.path())).unwrap();
    for keep in [1000, PAGE, 3 * PAGE, whole.len() / 2] {
        fs::write(data_file(folder.path()), &whole[..keep]).unwrap();
        let doctor = run(folder.path(), &["doctor"], b"");
        assert_eq!(
            doctor.status.code(),
            Some(1),
            "{keep} bytes: {}",
            text(&doctor.stdout)
        );
        let said = text(&doctor.stdout);
        assert!(
            said.contains("FAIL") && said.contains("damaged"),
            "{keep} bytes: {said}"
        );
        assert!(
            said.contains("contextkeep.db") || said.contains("data"),
            "{keep} bytes: {said}"
        );
    }
}

#[test]
fn damage_that_a_read_meets_is_answered_and_the_process_lives() {
    let folder = filled(2000);
    let mut bytes = fs::read(data_file(folder.path())).unwrap();
    // The page that holds an item in the middle; the search index has its words, but not its JSON.
    let needle = br#"{"content":"1000 "#;
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap();
    let page = at / PAGE * PAGE;
    bytes[page..page + PAGE].fill(0xa5);
    fs::write(data_file(folder.path()), &bytes).unwrap();
    let server = Server::in_folder(folder.path());
    let mut damaged = 0;
    for after in (0..2000).step_by(50) {
        let page = server
            .client()
            .get(&format!("/v1/contexts/c/items?limit=50&after={after}"));
        if page.status != 200 {
            page.problem(500, "storage_damaged");
            damaged += 1;
        }
    }
    assert!(damaged > 0, "the damage was not met");
    assert_eq!(server.client().get("/healthz").status, 200);
}

#[test]
fn another_programs_database_is_refused_and_left_alone() {
    let folder = folder();
    fs::create_dir(folder.path().join("data")).unwrap();
    let theirs = Connection::open(data_file(folder.path())).unwrap();
    theirs
        .execute_batch("CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')")
        .unwrap();
    drop(theirs);
    let before = fs::read(data_file(folder.path())).unwrap();
    assert_refused(folder.path(), &["contextkeep.db", "not one of Contextkeep's"]);
    assert_eq!(fs::read(data_file(folder.path())).unwrap(), before);
}

#[test]
fn a_newer_schema_is_refused() {
    let folder = filled(1);
    let newer = Connection::open(data_file(folder.path())).unwrap();
    newer
        .execute(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
             SELECT 999, 'from_the_future', applied_on, checksum FROM refinery_schema_history LIMIT 1",
            [],
        )
        .unwrap();
    drop(newer);
    assert_refused(folder.path(), &["contextkeep.db", "999", "newer Contextkeep"]);
}

#[test]
fn a_data_folder_that_is_a_file_is_refused() {
    let folder = folder();
    fs::write(folder.path().join("data"), "not a folder").unwrap();
    assert_refused(folder.path(), &["data folder", "context_manager.embedded.path"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let folder = folder();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(data.join("probe"), "").is_ok() {
        // Root writes everywhere; a folder that is no folder is what it cannot write, which another test has.
        fs::remove_file(data.join("probe")).unwrap();
        return;
    }
    assert_refused(folder.path(), &["cannot create", "context_manager.embedded.path"]);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_file_that_another_process_holds_is_answered_unavailable() {
    let server = Server::with("context_manager: { embedded: { busy_timeout: 100ms } }");
    let client = server.client();
    fill(&client, "c", 1, 10);
    let holder = Connection::open(data_file(server.folder())).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let item = r#"{"items":[{"role":"user","content":"x","client_id":"m"}]}"#;
    let refused = client.post("/v1/contexts/c/items", item);
    let problem = refused.problem(503, "unavailable");
    assert!(
        problem["detail"].as_str().unwrap().contains("another process"),
        "{problem}"
    );
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Readers of a write-ahead log do not wait for a writer.
    assert_eq!(client.get("/v1/contexts/c").ok()["item_count"], 1);
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    assert_eq!(client.post("/v1/contexts/c/items", item).ok()["first_seq"], 2);
    assert_eq!(client.get("/v1/contexts/c").ok()["item_count"], 2);
    server.assert_serves();
}

#[test]
fn a_start_beside_a_process_that_holds_the_file_says_so() {
    let folder = filled(1);
    let holder = Connection::open(data_file(folder.path())).unwrap();
    holder
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        .unwrap();
    let start = Start::with("context_manager: { embedded: { busy_timeout: 100ms } }");
    let (status, log) = start.refused(folder.path());
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("contextkeep.db") && log.contains("another process"),
        "{log}"
    );
}

#[test]
fn a_full_disk_loses_nothing_and_room_makes_it_work_again() {
    let config = "context_manager: { embedded: { max_size: 2MiB }, retention: { sweep_interval: 50ms } }";
    let server = Server::with(config);
    let client = server.client();
    for id in ["a", "b"] {
        client
            .post("/v1/contexts", json!({"id": id, "agent_id": "a"}).to_string())
            .ok();
    }
    let acknowledged = append_until_full(&client, "a");
    assert!(acknowledged > 10, "{acknowledged}");
    server.assert_serves();
    assert_eq!(seqs(&client, "a"), (1..=acknowledged).collect::<Vec<_>>());
    client.get("/v1/contexts/a/window?max_tokens=5000").ok();
    assert_eq!(client.get("/v1/contexts/b").ok()["item_count"], 0);

    let server = server.kill().up();
    let client = server.client();
    assert_eq!(seqs(&client, "a"), (1..=acknowledged).collect::<Vec<_>>());
    assert_eq!(
        client.delete("/v1/contexts/a").status,
        204,
        "room can be made on a full disk"
    );
    let server = server.restart();
    let client = server.client();
    eventually("the sweep makes room", || {
        let answer = client.post("/v1/contexts/b/items", item(1));
        (answer.status == 200).then_some(())
    });
    server.stop();
}

/// Appends items of 8 KiB until there is no room; answers how many were acknowledged.
fn append_until_full(client: &Client, id: &str) -> u64 {
    let mut n = 1;
    loop {
        let answer = client.post(&format!("/v1/contexts/{id}/items"), item(n));
        if answer.status == 503 {
            // Undone together with a batch of the search index that met the limit first.
            answer.problem(503, "unavailable");
            continue;
        }
        if answer.status != 200 {
            let problem = answer.problem(507, "storage_full");
            assert!(
                problem["hint"].as_str().unwrap().contains("max_size"),
                "{problem}"
            );
            return n - 1;
        }
        assert_eq!(answer.json()["last_seq"], n);
        n += 1;
    }
}

fn item(n: u64) -> String {
    json!({"items": [{"role": "user", "content": format!("{n} {}", "x".repeat(8192))}]}).to_string()
}

fn seqs(client: &Client, id: &str) -> Vec<u64> {
    let page = client.get(&format!("/v1/contexts/{id}/items?limit=1000")).ok();
    assert_eq!(page["next_cursor"], json!(null));
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["seq"].as_u64().unwrap()).collect()
}

#[test]
fn a_whole_file_passes_the_doctor() {
    let folder = filled(3);
    let said = run_ok(folder.path(), &["doctor"]);
    assert!(said.contains("is whole"), "{said}");
    assert!(
        run_ok(folder.path(), &["migrate"]).contains("schema version"),
        "migrating again changes nothing"
    );
}
