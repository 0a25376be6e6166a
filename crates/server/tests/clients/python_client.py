"""Drives a running server with the official Python client, in both protocol eras.

    python_client.py http URL [BEARER]
    python_client.py stdio COMMAND [ARGUMENT ...]

Exits with 0 if everything was as it should be.
"""

import asyncio
import json
import sys
import uuid

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

TOOLS = [
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
]

ITEMS = [
    {"role": "user", "content": "Which bridge do we take?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "map", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "the vermilion bridge is open"},
    {"role": "assistant", "content": "We take the vermilion bridge."},
]


def expect(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: found {found!r}, wanted {wanted!r}")


async def call(client, tool, arguments):
    """The structured content, which the client has checked against the tool's output schema."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        raise AssertionError(f"{tool}: {result.content[0].text}")
    expect(f"{tool}: text and structured content", json.loads(result.content[0].text), result.structured_content)
    return result.structured_content


async def found(client, query, context):
    """Hits in a context. The index may lag behind appends, and says by how much."""
    for _ in range(200):
        page = await call(client, "context_search", {"query": query, "id": context})
        if page["hits"] or page["lag_items"] == 0:
            return page["hits"]
        await asyncio.sleep(0.05)
    raise AssertionError("the search index does not catch up")


async def exercise(client, era):
    listed = await client.list_tools()
    expect("tools", [tool.name for tool in listed.tools], TOOLS)

    context = f"python-{era}-{uuid.uuid4()}"
    created = await call(client, "context_create", {"id": context, "agent_id": "planner", "metadata": {"n": 1}})
    expect("created", created["created"], True)

    append = {"id": context, "items": ITEMS, "idempotency_key": "first"}
    appended = await call(client, "context_append", append)
    expect("seqs", (appended["first_seq"], appended["last_seq"]), (1, 4))
    expect("a retry", await call(client, "context_append", append), appended)

    window = await call(client, "context_window", {"id": context})
    expect("items of the window", [entry["item"] for entry in window["items"]], ITEMS)
    expect("tokens of the window", window["tokens"], appended["tokens"])

    hits = await found(client, "vermilion", context)
    expect("hits", sorted(hit["seq"] for hit in hits), [3, 4])

    refused = await client.call_tool("context_window", {"id": context, "max_tokens": 0})
    expect("a refusal", refused.is_error, True)
    expect("its code", refused.content[0].text.split(":")[0], "invalid")

    resource = await client.read_resource(f"context://{context}")
    expect("a resource", json.loads(resource.contents[0].text)["metadata"], {"n": 1})
    try:
        await client.read_resource("context://nowhere")
    except MCPError as error:
        expect("a resource that is not there", error.code in (-32602, -32002), True)
    else:
        raise AssertionError("context://nowhere was read")

    handoff = await client.get_prompt("handoff", {"id": context})
    expect("messages of the prompt", len(handoff.messages), 2)

    await call(client, "context_delete", {"id": context})
    print(f"ok: python, {era}, protocol {client.protocol_version}")


async def main(transport, *rest):
    for era in ("legacy", "auto"):
        if transport == "stdio":
            async with Client(StdioServerParameters(command=rest[0], args=list(rest[1:])), mode=era) as client:
                await exercise(client, era)
        elif transport == "http":
            headers = {"Authorization": f"Bearer {rest[1]}"} if len(rest) > 1 else {}
            async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
                async with Client(streamable_http_client(rest[0], http_client=http), mode=era) as client:
                    await exercise(client, era)
        else:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
