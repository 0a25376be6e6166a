//! Resident memory of an embedded server while more distinct contexts are read than its memory holds.

use serde_json::json;

use super::client::Process;
use super::cluster::Server;

const CONTEXTS: usize = 1500;
const ITEMS: usize = 16;
const ITEM_BYTES: usize = 16 << 10;
const MAX_MIB: u64 = 64;

pub(crate) async fn run() {
    let settings =
        json!({"context_manager": {"cache": {"in_memory": {"max_bytes": format!("{MAX_MIB}MiB")}}}});
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let server = Server::new(Process::serve(folder.path(), &settings), folder);
    let mut connection = server.connect().await;
    let idle = resident(&server);
    let item = json!({"role": "user", "content": "word ".repeat(ITEM_BYTES / 5)});
    let items = json!({ "items": vec![item; ITEMS] }).to_string();
    for context in 0..CONTEXTS {
        let new = format!(r#"{{"id":"f{context}","agent_id":"a"}}"#);
        connection.send(&server.post("/v1/contexts", &new)).await;
        let path = format!("/v1/contexts/f{context}/items");
        connection.send(&server.post(&path, &items)).await;
    }
    let written = resident(&server);
    let mut most = 0;
    for round in 0..2 {
        for context in 0..CONTEXTS {
            let path = format!("/v1/contexts/f{context}/window?max_tokens=100000");
            connection.send(&server.get(&path)).await;
            if context % 50 == 0 {
                most = most.max(resident(&server));
            }
        }
        println!(
            "    after reading all {} times: {} MiB resident",
            round + 1,
            resident(&server)
        );
    }
    let data = (CONTEXTS * ITEMS * ITEM_BYTES) >> 20;
    println!(
        "flood: {CONTEXTS} contexts of {} KiB ({data} MiB) through max_bytes {MAX_MIB} MiB: resident {idle} MiB idle, {written} after \
         writing, at most {most} while reading",
        (ITEMS * ITEM_BYTES) >> 10,
    );
}

/// Mebibytes that the system counts as the server's.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib >> 10
}
