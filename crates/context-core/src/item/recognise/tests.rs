use serde_json::json;

use super::*;

fn seen(value: &Value) -> Recognised {
    recognise(value).unwrap_or_else(|error| panic!("{value}: {error}"))
}

#[test]
fn a_chat_message_is_a_message() {
    let item = seen(&json!({"role": "user", "content": "hello"}));
    assert_eq!((item.traits.role, item.traits.kind), (Role::User, Kind::Message));
    assert_eq!(item.text, "hello");
    assert!(item.traits.starts_turn());
}

#[test]
fn chat_tool_calls_and_their_result_share_an_id() {
    let call = seen(&json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{\"q\":1}"}}]}));
    let result = seen(&json!({"role": "tool", "tool_call_id": "call_1", "content": "found"}));
    assert_eq!(call.traits.links.calls, ["call_1"]);
    assert_eq!(call.text, "find\n{\"q\":1}");
    assert_eq!(result.traits.links.results, ["call_1"]);
    assert_eq!(result.traits.kind, Kind::ToolResult);
}

#[test]
fn responses_items_are_recognised() {
    let call = seen(&json!({"type": "function_call", "call_id": "c", "name": "find", "arguments": "{}"}));
    let output = seen(&json!({"type": "function_call_output", "call_id": "c", "output": "found"}));
    let reasoning =
        seen(&json!({"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "opaque"}));
    let message = seen(
        &json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}),
    );
    assert_eq!(call.traits.links.calls, ["c"]);
    assert_eq!(
        (output.traits.role, output.traits.kind),
        (Role::Tool, Kind::ToolResult)
    );
    assert_eq!(output.traits.links.results, ["c"]);
    assert_eq!(
        (reasoning.traits.kind, reasoning.text.as_str()),
        (Kind::Reasoning, "")
    );
    assert_eq!(
        (message.traits.kind, message.text.as_str()),
        (Kind::Message, "hi")
    );
}

#[test]
fn an_anthropic_user_message_of_results_only_starts_no_turn() {
    let call = seen(&json!({"role": "assistant", "content": [
        {"type": "text", "text": "looking"}, {"type": "tool_use", "id": "t1", "name": "find", "input": {"q": "x"}}]}));
    let result = seen(&json!({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "found"}]}]}));
    let mixed = seen(&json!({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t1", "content": "found"}, {"type": "text", "text": "and now?"}]}));
    assert_eq!(call.traits.links.calls, ["t1"]);
    assert_eq!(result.traits.links.results, ["t1"]);
    assert!(!result.traits.starts_turn());
    assert_eq!(mixed.traits.kind, Kind::Message);
    assert_eq!(mixed.traits.links.results, ["t1"]);
    assert_eq!(result.text, "found");
}

#[test]
fn media_is_counted_not_read() {
    let item = seen(&json!({"role": "user", "content": [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image", "source": {"type": "base64", "data": "AAAA"}}]}));
    assert_eq!((item.media, item.text.as_str()), (2, "what is this?"));
}

#[test]
fn unknown_provider_items_pass_through() {
    let item = seen(&json!({"type": "compaction", "id": "x", "encrypted_content": "opaque", "note": "kept"}));
    assert_eq!((item.traits.kind, item.text.as_str()), (Kind::Other, "kept"));
}

#[test]
fn our_own_fields_stand_beside() {
    let item =
        seen(&json!({"role": "user", "content": "x", "client_id": "m1", "pinned": true, "importance": 0.5}));
    assert_eq!(item.traits.client_id.as_ref().map(ClientId::as_str), Some("m1"));
    assert!(item.traits.pinned && item.traits.always_kept());
    assert_eq!(item.traits.importance, Some(0.5));
}

#[test]
fn what_is_wrong_is_named_by_its_field() {
    for (value, field) in [
        (json!("hello"), ""),
        (json!({}), "role"),
        (json!({"role": "robot", "content": "x"}), "role"),
        (json!({"role": 7}), "role"),
        (json!({"role": "user", "content": 7}), "content"),
        (json!({"role": "user", "content": [7]}), "content[0]"),
        (json!({"role": "tool", "content": "x"}), "tool_call_id"),
        (json!({"role": "assistant", "tool_calls": {}}), "tool_calls"),
        (
            json!({"role": "assistant", "tool_calls": [{}]}),
            "tool_calls[0].id",
        ),
        (json!({"role": "user", "content": "x", "pinned": "yes"}), "pinned"),
        (
            json!({"role": "user", "content": "x", "importance": 2}),
            "importance",
        ),
        (
            json!({"role": "user", "content": "x", "client_id": ""}),
            "client_id",
        ),
        (
            json!({"role": "user", "content": "x", "metadata": []}),
            "metadata",
        ),
    ] {
        match recognise(&value).map(|_| ()) {
            Err(crate::Error::Invalid(invalid)) => assert_eq!(invalid.field, field, "{value}"),
            other => panic!("{value}: {other:?}"),
        }
    }
}
