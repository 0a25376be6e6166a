//! The client against an endpoint in the process that does what it is told.

use std::sync::Arc;
use std::time::Duration;

use contextkeep_core::summary::{Draft, Fault, Summariser};
use contextkeep_resilience::breaker::State;
use secrecy::SecretString;

use super::chat::Chat;
use super::settings::{OutputTokensField, SummariesSettings};
use crate::endpoint::fake::{Act, Fake, reply};

const KEY: &str = "sk-not-for-the-log";
const DRAFT: Draft = Draft {
    instructions: "summarise",
    material: String::new(),
    max_tokens: 77,
};

fn says(text: &str) -> Act {
    let body =
        serde_json::json!({"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {}});
    reply("200 OK", "content-type: application/json\r\n", &body.to_string())
}

impl Fake {
    fn settings(&self) -> SummariesSettings {
        SummariesSettings {
            endpoint: Some(self.url.clone()),
            model: Some("small".to_owned()),
            api_key: Some(SecretString::from(KEY)),
            timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(10),
            max_retries: 0,
            ..SummariesSettings::default()
        }
    }
}

fn chat(settings: &SummariesSettings) -> Chat {
    Chat::new(settings).unwrap().unwrap()
}

async fn ask(chat: &Chat) -> Result<String, Fault> {
    let asked = chat.summarise(&DRAFT).await;
    // E4
    let said = format!("{asked:?} {chat:?}");
    assert!(!said.contains(KEY), "{said}");
    asked
}

#[tokio::test]
async fn a_draft_is_posted_as_a_chat_and_the_answer_is_its_text() {
    let fake = Fake::new([says("they met")]).await;
    let settings = fake.settings();
    assert_eq!(ask(&chat(&settings)).await.as_deref(), Ok("they met"));
    let other = SummariesSettings {
        output_tokens_field: OutputTokensField::MaxCompletionTokens,
        api_key: None,
        ..settings
    };
    ask(&chat(&other)).await.unwrap();
    let requests = fake.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains(&format!("authorization: Bearer {KEY}")), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({"model": "small", "max_tokens": 77, "messages": [
            {"role": "system", "content": "summarise"}, {"role": "user", "content": ""}]})
    );
    assert!(requests[1].contains("\"max_completion_tokens\":77") && !requests[1].contains("\"max_tokens\""));
    assert!(!requests[1].contains("authorization"), "{}", requests[1]);
}

#[tokio::test]
async fn a_retry_after_is_obeyed_by_everybody() {
    let busy = reply("429 Too Many Requests", "retry-after: 1\r\n", "");
    let fake = Fake::new([busy, says("then")]).await;
    let limited = chat(&SummariesSettings {
        open_time: Duration::from_millis(1),
        ..fake.settings()
    });
    let before = tokio::time::Instant::now();
    let failed = ask(&limited).await.unwrap_err();
    assert_eq!(failed, Fault::Failed("status 429".to_owned()));
    assert!(matches!(ask(&limited).await, Err(Fault::NotAsked(_))));
    let again = async || ask(&limited).await.ok();
    let what = "the endpoint is asked again";
    contextkeep_test_support::eventually_async(what, Duration::from_secs(20), again).await;
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(fake.requests().len(), 2, "and not before");

    // Longer than a call may take: the call ends at once.
    let fake = Fake::new([reply("503 Service Unavailable", "retry-after: 3600\r\n", "")]).await;
    let down = chat(&SummariesSettings {
        max_retries: 3,
        ..fake.settings()
    });
    let failed = ask(&down).await.unwrap_err();
    assert_eq!(failed, Fault::Failed("status 503".to_owned()));
    assert_eq!(down.breaker(), State::Open);
    assert!(matches!(ask(&down).await, Err(Fault::NotAsked(_))));
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn failures_in_a_row_open_the_breaker_and_it_closes_again() {
    let broken = || reply("500 Internal Server Error", "", "secret detail");
    let fake = Fake::new([broken(), broken(), broken(), says("well")]).await;
    let chat = chat(&SummariesSettings {
        failure_threshold: 3,
        open_time: Duration::from_millis(500),
        ..fake.settings()
    });
    for _ in 0..3 {
        let failed = ask(&chat).await.unwrap_err();
        assert_eq!(failed, Fault::Failed("status 500".to_owned()));
    }
    assert_eq!(chat.breaker(), State::Open);
    assert!(matches!(ask(&chat).await, Err(Fault::NotAsked(_))));
    assert_eq!(fake.requests().len(), 3, "nobody asked");
    let probed = async || ask(&chat).await.ok();
    let what = "a probe gets through";
    let text = contextkeep_test_support::eventually_async(what, Duration::from_secs(20), probed).await;
    assert_eq!(text, "well");
}

#[tokio::test]
async fn retries_are_bounded() {
    let fake = Fake::new([Act::Close]).await;
    let chat = chat(&SummariesSettings {
        max_retries: 2,
        failure_threshold: 100,
        ..fake.settings()
    });
    assert!(matches!(ask(&chat).await, Err(Fault::Failed(_))));
    assert_eq!(fake.requests().len(), 3);
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_given_up() {
    let fake = Fake::new([Act::Hang]).await;
    let settings = SummariesSettings {
        attempt_timeout: Duration::from_millis(100),
        ..fake.settings()
    };
    assert!(matches!(ask(&chat(&settings)).await, Err(Fault::Failed(_))));
    let settings = SummariesSettings {
        timeout: Duration::from_millis(100),
        ..fake.settings()
    };
    assert!(matches!(ask(&chat(&settings)).await, Err(Fault::Failed(_))));
    // A body that never ends is a reply that is too large.
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(3 << 20));
    let fake = Fake::new([Act::Send(endless)]).await;
    let failed = ask(&chat(&fake.settings())).await.unwrap_err();
    assert!(
        matches!(&failed, Fault::Unusable(what) if what.contains("max_reply_size")),
        "{failed:?}"
    );
}

#[tokio::test]
async fn what_is_no_summary_is_not_taken_for_one() {
    let elsewhere = Fake::new([says("stolen")]).await;
    let redirect = format!("location: {}/chat/completions\r\n", elsewhere.url);
    for (act, is_unusable) in [
        (reply("200 OK", "", "<html>a proxy</html>"), true),
        (reply("200 OK", "", r#"{"choices": []}"#), true),
        (
            reply("200 OK", "", r#"{"choices": [{"message": {"content": null}}]}"#),
            true,
        ),
        (says("  \n"), true),
        (reply("307 Temporary Redirect", &redirect, ""), true),
        (reply("401 Unauthorized", "", "wrong key"), false),
        (reply("400 Bad Request", "", "too long"), false),
        (Act::Send("garbage\r\n\r\n".to_owned()), false),
    ] {
        let fake = Fake::new([act]).await;
        let chat = chat(&SummariesSettings {
            max_retries: 2,
            ..fake.settings()
        });
        let fault = ask(&chat).await.unwrap_err();
        assert_eq!(matches!(fault, Fault::Unusable(_)), is_unusable, "{fault:?}");
        if is_unusable {
            assert_eq!(fake.requests().len(), 1, "it costs, and would end the same way");
        }
    }
    assert_eq!(elsewhere.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_host_has_to_prove_who_it_is() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let fake = Fake::over([says("encrypted")], Some(Arc::new(config).into())).await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, issued.cert.pem()).unwrap();
    let trusting = SummariesSettings {
        ca_file: Some(ca_file),
        ..fake.settings()
    };
    assert_eq!(ask(&chat(&trusting)).await.as_deref(), Ok("encrypted"));

    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let ca_file = folder.path().join("other.pem");
    std::fs::write(&ca_file, other.cert.pem()).unwrap();
    let wary = SummariesSettings {
        ca_file: Some(ca_file.clone()),
        ..fake.settings()
    };
    assert!(matches!(ask(&chat(&wary)).await, Err(Fault::Failed(_))));
    assert_eq!(fake.requests().len(), 1, "the key was not sent");
    let missing = SummariesSettings {
        ca_file: Some(folder.path().join("none.pem")),
        ..fake.settings()
    };
    let refused = format!("{:#}", Chat::new(&missing).unwrap_err());
    assert!(refused.contains("none.pem"), "{refused}");
}
