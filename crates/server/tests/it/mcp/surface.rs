//! What clients are shown.

use contextkeep_server::mcp;
use serde_json::{Value, json};

use super::{Era, Server};

/// Calls the function on every schema inside a schema.
fn walk(schema: &Value, path: &str, see: &mut impl FnMut(&str, &serde_json::Map<String, Value>)) {
    let object = schema
        .as_object()
        .unwrap_or_else(|| panic!("{path} is not a schema: {schema}"));
    see(path, object);
    if let Some(properties) = object.get("properties") {
        for (name, property) in properties.as_object().unwrap() {
            walk(property, &format!("{path}.{name}"), see);
        }
    }
    if let Some(items) = object.get("items") {
        walk(items, &format!("{path}[]"), see);
    }
}

#[test]
fn every_schema_is_one_that_every_client_understands() {
    let described = mcp::describe();
    for tool in described["tools"].as_array().unwrap() {
        for side in ["inputSchema", "outputSchema"] {
            let schema = &tool[side];
            assert_eq!(schema["type"], "object", "{} {side}", tool["name"]);
            let path = format!("{}.{side}", tool["name"].as_str().unwrap());
            walk(schema, &path, &mut |path, schema| {
                assert!(
                    schema.get("type").is_some_and(Value::is_string),
                    "{path} has no single type: {schema:?}"
                );
                for keyword in [
                    "$ref", "$defs", "$schema", "format", "anyOf", "oneOf", "allOf", "title",
                ] {
                    assert!(!schema.contains_key(keyword), "{path} has {keyword}");
                }
                if schema["type"] == "array" {
                    assert!(schema.contains_key("items"), "{path} has no items");
                }
            });
        }
        walk(&tool["inputSchema"], "input", &mut |path, schema| {
            let described = path == "input" || path.ends_with("[]") || schema.contains_key("description");
            assert!(described, "{}: {path} is not described", tool["name"]);
        });
        assert_eq!(tool["inputSchema"]["additionalProperties"], false);
    }
}

#[test]
fn the_tools_are_those_of_the_contract_in_a_stable_order() {
    let described = mcp::describe();
    let tools = described["tools"].as_array().unwrap();
    let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let expected = [
        "context_append",
        "context_create",
        "context_delete",
        "context_fork",
        "context_list",
        "context_search",
        "context_summarize",
        "context_truncate",
        "context_update",
        "context_window",
    ];
    assert_eq!(names, expected);
    for tool in tools {
        let hints = &tool["annotations"];
        let reads =
            ["context_list", "context_search", "context_window"].contains(&tool["name"].as_str().unwrap());
        assert_eq!(hints["readOnlyHint"], reads, "{}", tool["name"]);
        assert_eq!(hints["openWorldHint"], false, "{}", tool["name"]);
        assert!(hints["destructiveHint"].is_boolean() && hints["idempotentHint"].is_boolean());
        assert!(tool["title"].is_string());
        assert!(
            tool["description"].as_str().unwrap().len() < 400,
            "{}",
            tool["name"]
        );
    }
    // It stands in the context of every conversation.
    let size = described["tools"].to_string().len();
    assert!(size < 23_500, "{size}");
}

#[tokio::test]
async fn a_client_sees_the_described_tools_in_both_revisions() {
    let server = Server::start().await;
    for era in Era::BOTH {
        let client = server.client(era, "acme").await;
        let listed = client.0.list_tools(None).await.unwrap();
        assert_eq!(json!(listed.tools), mcp::describe()["tools"]);
        assert!(listed.next_cursor.is_none());
    }
}

#[tokio::test]
async fn lists_say_how_long_and_for_whom_they_hold() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    let tools = json!(client.0.list_tools(None).await.unwrap());
    let prompts = json!(client.0.list_prompts(None).await.unwrap());
    let templates = json!(client.0.list_resource_templates(None).await.unwrap());
    let resources = json!(client.0.list_resources(None).await.unwrap());
    for (list, ttl) in [
        (tools, 300_000),
        (prompts, 300_000),
        (templates, 300_000),
        (resources, 0),
    ] {
        assert_eq!(
            (&list["cacheScope"], &list["ttlMs"]),
            (&json!("private"), &json!(ttl)),
            "{list}"
        );
        assert_eq!(
            list["_meta"]["io.modelcontextprotocol/serverInfo"]["name"],
            "contextkeep"
        );
    }
}

#[tokio::test]
async fn an_unknown_tool_is_a_protocol_error() {
    let server = Server::start().await;
    let client = server.client(Era::Modern, "acme").await;
    let request = rmcp::model::CallToolRequestParams::new("context_items");
    let error = client.0.call_tool(request).await.unwrap_err().to_string();
    assert!(error.contains("-32602"), "{error}");
}
