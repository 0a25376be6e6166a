//! Resources, completions and prompts.

use rmcp::model::{
    ArgumentInfo, CompleteRequestParams, GetPromptRequestParams, PaginatedRequestParams,
    ReadResourceRequestParams, Reference, ResourceContents,
};
use rmcp::service::ServiceError;
use serde_json::{Value, json};

use super::{Client, Era, Server};

async fn read(client: &Client, uri: &str) -> Value {
    let result = client
        .0
        .read_resource(ReadResourceRequestParams::new(uri))
        .await
        .unwrap();
    let [ResourceContents::TextResourceContents { text, mime_type, .. }] = result.contents.as_slice() else {
        panic!("{uri}: not one text");
    };
    assert_eq!(mime_type.as_deref(), Some("application/json"));
    serde_json::from_str(text).unwrap()
}

fn id_argument(typed: &str) -> ArgumentInfo {
    serde_json::from_value(json!({"name": "id", "value": typed})).unwrap()
}

#[tokio::test]
async fn a_listed_context_and_its_window_can_be_read() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client.context("user:7@host", &["hello"]).await;
    let listed = client.0.list_resources(None).await.unwrap().resources;
    assert_eq!(listed[0].uri, "context://user%3A7%40host");
    let context = read(&client, &listed[0].uri).await;
    assert_eq!(
        (&context["id"], &context["metadata"]),
        (&json!("user:7@host"), &json!({}))
    );
    let window = read(&client, &format!("{}/window", listed[0].uri)).await;
    assert_eq!(window["items"][0]["item"]["content"], "hello");
}

#[tokio::test]
async fn a_resource_that_is_not_there_has_the_code_of_its_revision() {
    let server = Server::start().await;
    for (era, code) in [(Era::Legacy, -32002), (Era::Modern, -32602)] {
        let client = server.client(era, "acme").await;
        for uri in [
            "context://nowhere",
            "context://nowhere/window",
            "file:///etc/passwd",
        ] {
            let outcome = client.0.read_resource(ReadResourceRequestParams::new(uri)).await;
            let Err(ServiceError::McpError(error)) = outcome else {
                panic!("{uri}: {outcome:?}");
            };
            assert_eq!(error.code.0, code, "{era:?} {uri}");
            assert_eq!(error.data, Some(json!({"uri": uri})));
        }
    }
}

#[tokio::test]
async fn the_list_of_resources_is_paged() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    for number in 0..51 {
        client.context(&format!("c{number}"), &[]).await;
    }
    let first = client.0.list_resources(None).await.unwrap();
    assert_eq!(first.resources.len(), 50);
    let next = PaginatedRequestParams::default().with_cursor(first.next_cursor);
    let second = client.0.list_resources(Some(next)).await.unwrap();
    assert_eq!((second.resources.len(), second.next_cursor), (1, None));
    let forged = PaginatedRequestParams::default().with_cursor(Some("forged".to_owned()));
    let error = client
        .0
        .list_resources(Some(forged))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("-32602"), "{error}");
}

#[tokio::test]
async fn an_id_is_completed_from_what_was_typed() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    for id in ["trip-1", "trip-2", "other"] {
        client.context(id, &[]).await;
    }
    for reference in [
        Reference::for_resource("context://{id}/window"),
        Reference::for_prompt("recall"),
    ] {
        let request = CompleteRequestParams::new(reference, id_argument("trip"));
        let mut values = client.0.complete(request).await.unwrap().completion.values;
        values.sort();
        assert_eq!(values, ["trip-1", "trip-2"]);
    }
    for id in 0..101 {
        client.context(&format!("many-{id}"), &[]).await;
    }
    let request = CompleteRequestParams::new(Reference::for_prompt("handoff"), id_argument("many-"));
    let completion = client.0.complete(request).await.unwrap().completion;
    assert_eq!((completion.values.len(), completion.has_more), (100, Some(true)));
    let unknown = CompleteRequestParams::new(Reference::for_prompt("nothing"), id_argument(""));
    assert!(client.0.complete(unknown).await.is_err());
}

#[tokio::test]
async fn prompts_carry_what_is_stored() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    client
        .context("c", &["we chose the blue bridge", "and tea"])
        .await;
    let arguments = |value: Value| value.as_object().unwrap().clone();

    let recall = GetPromptRequestParams::new("recall")
        .with_arguments(arguments(json!({"id": "c", "topic": "bridge OR \"colour\""})));
    let text = json!(client.0.get_prompt(recall).await.unwrap().messages).to_string();
    assert!(text.contains("seq 1 (user)") && text.contains("blue"), "{text}");
    assert!(!text.contains("seq 2"), "{text}");

    let handoff = GetPromptRequestParams::new("handoff").with_arguments(arguments(json!({"id": "c"})));
    let messages = json!(client.0.get_prompt(handoff).await.unwrap().messages);
    assert_eq!(messages[0]["content"]["resource"]["uri"], "context://c/window");
    assert!(messages.to_string().contains("and tea"));

    for (prompt, given) in [
        ("recall", json!({"id": "c"})),
        ("recall", json!({"id": "c", "topic": "?!"})),
        ("handoff", json!({"id": "nowhere"})),
        ("nothing", json!({"id": "c"})),
    ] {
        let request = GetPromptRequestParams::new(prompt).with_arguments(arguments(given.clone()));
        let error = client.0.get_prompt(request).await.unwrap_err().to_string();
        assert!(error.contains("-32602"), "{prompt} {given}: {error}");
    }
}
