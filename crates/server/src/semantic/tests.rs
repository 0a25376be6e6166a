//! The client against an endpoint in the process that does what it is told.

use std::time::Duration;

use contextkeep_core::semantic::{Embedder as _, Fault};
use contextkeep_resilience::breaker::State;
use secrecy::SecretString;
use serde_json::json;

use super::embeddings::Embeddings;
use super::settings::SemanticSettings;
use crate::endpoint::fake::{Act, Fake, reply};

const KEY: &str = "sk-not-for-the-log";
const SECRET: &str = "what nobody else should read";

fn settings(fake: &Fake) -> SemanticSettings {
    SemanticSettings {
        endpoint: Some(fake.url.clone()),
        model: Some("small".to_owned()),
        dimensions: Some(3),
        api_key: Some(SecretString::from(KEY)),
        timeout: Duration::from_secs(30),
        attempt_timeout: Duration::from_secs(10),
        max_retries: 0,
        ..SemanticSettings::default()
    }
}

fn client(settings: &SemanticSettings) -> Embeddings {
    Embeddings::new(settings).unwrap().unwrap()
}

fn ok(body: &str) -> Act {
    reply("200 OK", "content-type: application/json\r\n", body)
}

async fn ask(client: &Embeddings) -> Result<Vec<Vec<f32>>, Fault> {
    let asked = client.embed(&[SECRET, "b"]).await;
    let said = format!("{asked:?} {client:?}");
    assert!(!said.contains(KEY) && !said.contains(SECRET), "{said}");
    asked
}

#[tokio::test]
async fn texts_are_posted_and_vectors_come_back_in_their_order() {
    let swapped = json!({"object": "list", "data": [
        {"object": "embedding", "index": 1, "embedding": [0.5, 0, -1]},
        {"object": "embedding", "index": 0, "embedding": [1, 2e-3, 3]}], "usage": {}});
    let unnumbered = json!({"data": [{"embedding": [1, 0, 0]}, {"embedding": [0, 1, 0]}]});
    let fake = Fake::new([ok(&swapped.to_string()), ok(&unnumbered.to_string())]).await;
    let settings = settings(&fake);
    let first = ask(&client(&settings)).await.unwrap();
    assert_eq!(first, [[1.0, 0.002, 3.0], [0.5, 0.0, -1.0]]);
    let other = SemanticSettings {
        send_dimensions: true,
        api_key: None,
        ..settings
    };
    let second = ask(&client(&other)).await.unwrap();
    assert_eq!(second, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
    let requests = fake.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/embeddings HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("authorization: Bearer {KEY}")), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, json!({"model": "small", "input": [SECRET, "b"]}));
    assert!(requests[1].contains("\"dimensions\":3") && !requests[1].contains("authorization"));
}

#[tokio::test]
async fn what_is_not_a_vector_for_each_text_is_not_taken() {
    let elsewhere = Fake::new([ok("{}")]).await;
    let redirect = format!("location: {}/embeddings\r\n", elsewhere.url);
    let one = r#"{"embedding": [1, 2, 3]}"#;
    for act in [
        ok("<html>a proxy</html>"),
        ok(r#"{"data": []}"#),
        ok(&format!(r#"{{"data": [{one}]}}"#)),
        ok(&format!(r#"{{"data": [{one}, {one}, {one}]}}"#)),
        ok(&format!(r#"{{"data": [{one}, {{"embedding": [1, 2]}}]}}"#)),
        ok(&format!(r#"{{"data": [{one}, {{"embedding": [1, 2, 1e99]}}]}}"#)),
        ok(&format!(r#"{{"data": [{one}, {{"embedding": [1, 2, null]}}]}}"#)),
        ok(&format!(r#"{{"data": [{one}, {{"embedding": "AAAA"}}]}}"#)),
        ok(r#"{"data": [{"index": 0, "embedding": [1,2,3]}, {"index": 0, "embedding": [1,2,3]}]}"#),
        ok(r#"{"data": [{"index": 0, "embedding": [1,2,3]}, {"index": 7, "embedding": [1,2,3]}]}"#),
        reply("307 Temporary Redirect", &redirect, ""),
        Act::Send(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(3 << 20))),
    ] {
        let fake = Fake::new([act]).await;
        let client = client(&SemanticSettings {
            max_retries: 2,
            max_reply_size: bytesize::ByteSize::mib(1),
            ..settings(&fake)
        });
        let fault = ask(&client).await.unwrap_err();
        assert!(matches!(fault, Fault::Unusable(_)), "{fault:?}");
        assert_eq!(fake.requests().len(), 1, "it costs, and would end the same way");
    }
    assert_eq!(elsewhere.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_text_that_is_refused_says_nothing_of_the_endpoint() {
    for status in [
        "400 Bad Request",
        "413 Content Too Large",
        "422 Unprocessable Content",
    ] {
        let fake = Fake::new([reply(status, "", "too long")]).await;
        let client = client(&SemanticSettings {
            failure_threshold: 1,
            max_retries: 2,
            ..settings(&fake)
        });
        for _ in 0..3 {
            assert!(matches!(ask(&client).await, Err(Fault::Refused(_))), "{status}");
        }
        assert_eq!((client.breaker(), fake.requests().len()), (State::Closed, 3));
    }
    let fake = Fake::new([reply("401 Unauthorized", "", "wrong key")]).await;
    let failed = ask(&client(&settings(&fake))).await.unwrap_err();
    assert!(matches!(failed, Fault::Failed { .. }), "{failed:?}");
}

#[tokio::test]
async fn an_endpoint_that_asks_for_a_rest_gets_it() {
    let busy = reply("429 Too Many Requests", "retry-after: 3600\r\n", "");
    let fake = Fake::new([busy]).await;
    let limited = client(&settings(&fake));
    let failed = ask(&limited).await.unwrap_err();
    assert_eq!(failed.retry_after(), Some(Duration::from_hours(1)), "{failed:?}");
    let failed = ask(&limited).await.unwrap_err();
    assert!(matches!(failed, Fault::NotAsked { .. }), "{failed:?}");
    assert!(
        failed
            .retry_after()
            .is_some_and(|wait| wait > Duration::from_mins(1))
    );
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_left_alone() {
    let fake = Fake::new([reply("500 Internal Server Error", "", "secret detail")]).await;
    let down = client(&SemanticSettings {
        failure_threshold: 2,
        ..settings(&fake)
    });
    for _ in 0..2 {
        assert!(down.is_ready());
        assert!(matches!(ask(&down).await, Err(Fault::Failed { .. })));
    }
    assert!(!down.is_ready());
    assert!(matches!(ask(&down).await, Err(Fault::NotAsked { .. })));
    assert_eq!(fake.requests().len(), 2);
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_given_up() {
    let fake = Fake::new([Act::Hang]).await;
    for settings in [
        SemanticSettings {
            attempt_timeout: Duration::from_millis(100),
            ..settings(&fake)
        },
        SemanticSettings {
            timeout: Duration::from_millis(100),
            ..settings(&fake)
        },
    ] {
        let failed = ask(&client(&settings)).await.unwrap_err();
        assert!(matches!(failed, Fault::Failed { .. }), "{failed:?}");
    }
    let fake = Fake::new([Act::Close]).await;
    let failed = ask(&client(&settings(&fake))).await.unwrap_err();
    assert!(matches!(failed, Fault::Failed { .. }), "{failed:?}");
}

#[test]
fn settings_that_contradict_themselves_are_named() {
    let keys = |settings: &SemanticSettings| -> Vec<&str> {
        settings.problems().into_iter().map(|(key, ..)| key).collect()
    };
    assert_eq!(keys(&SemanticSettings::default()), Vec::<&str>::new());
    let bare = SemanticSettings {
        endpoint: Some("api.example.com".to_owned()),
        poll: Duration::ZERO,
        ..SemanticSettings::default()
    };
    assert_eq!(keys(&bare), ["endpoint", "model", "dimensions", "poll"]);
    let headless = SemanticSettings {
        model: Some("small".to_owned()),
        ..SemanticSettings::default()
    };
    assert_eq!(keys(&headless), ["endpoint"]);
}
