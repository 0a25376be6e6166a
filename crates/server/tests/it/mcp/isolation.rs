//! G8: one tenant reaches nothing of another.

use rmcp::model::{CompleteRequestParams, ReadResourceRequestParams, Reference};
use serde_json::json;

use super::{Era, Server};

#[tokio::test]
async fn no_tool_reaches_another_tenants_context() {
    let server = Server::start().await;
    server
        .client(Era::Modern, "acme")
        .await
        .context("secret", &["the launch code"])
        .await;
    let spy = server.client(Era::Modern, "evil").await;
    let item = json!({"role": "user", "content": "x"});
    for (tool, arguments) in [
        ("context_append", json!({"id": "secret", "items": [item]})),
        ("context_window", json!({"id": "secret"})),
        ("context_list", json!({"id": "secret"})),
        ("context_search", json!({"id": "secret", "query": "launch"})),
        ("context_update", json!({"id": "secret", "name": "x"})),
        ("context_truncate", json!({"id": "secret", "max_tokens": 1})),
        ("context_summarize", json!({"id": "secret"})),
        ("context_fork", json!({"id": "secret", "agent_id": "x"})),
        ("context_fork", json!({"id": "secret"})),
        ("context_delete", json!({"id": "secret"})),
    ] {
        let text = spy.refusal(tool, arguments).await;
        assert!(text.starts_with("not_found: "), "{tool}: {text}");
    }
    assert_eq!(spy.call("context_list", json!({})).await["contexts"], json!([]));
    let hits = spy.call("context_search", json!({"query": "launch"})).await;
    assert_eq!(hits["hits"], json!([]));
}

#[tokio::test]
async fn a_cursor_of_another_tenant_shows_only_ones_own_contexts() {
    let server = Server::start().await;
    let owner = server.client(Era::Modern, "acme").await;
    owner.context("a", &[]).await;
    owner.context("b", &[]).await;
    let cursor = owner.call("context_list", json!({"limit": 1})).await["next_cursor"].clone();
    let spy = server.client(Era::Modern, "evil").await;
    let page = spy.call("context_list", json!({"cursor": cursor})).await;
    assert_eq!(page["contexts"], json!([]));
}

#[tokio::test]
async fn no_resource_and_no_completion_reaches_another_tenants_context() {
    let server = Server::start().await;
    server
        .client(Era::Modern, "acme")
        .await
        .context("secret", &["x"])
        .await;
    let spy = server.client(Era::Modern, "evil").await;
    for uri in ["context://secret", "context://secret/window"] {
        assert!(
            spy.0
                .read_resource(ReadResourceRequestParams::new(uri))
                .await
                .is_err(),
            "{uri}"
        );
    }
    assert!(spy.0.list_resources(None).await.unwrap().resources.is_empty());
    let completion = CompleteRequestParams::new(
        Reference::for_resource("context://{id}"),
        serde_json::from_value(json!({"name": "id", "value": ""})).unwrap(),
    );
    assert!(
        spy.0
            .complete(completion)
            .await
            .unwrap()
            .completion
            .values
            .is_empty()
    );
}

// M1
#[tokio::test]
async fn a_request_without_a_principal_is_an_internal_error() {
    let server = Server::start().await;
    let nobody = server.client(Era::Modern, "nobody").await;
    let request = rmcp::model::CallToolRequestParams::new("context_list");
    let error = nobody.0.call_tool(request).await.unwrap_err();
    assert!(
        error.to_string().contains("does not know who is calling"),
        "{error}"
    );
    assert!(nobody.0.list_resources(None).await.is_err());
    let uri = ReadResourceRequestParams::new("context://a");
    assert!(nobody.0.read_resource(uri).await.is_err());
}
