// Drives a running server with the official TypeScript client, in both protocol eras.
//
//     node client.mjs http URL [BEARER]
//     node client.mjs stdio COMMAND [ARGUMENT ...]
//
// Exits with 0 if everything was as it should be.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const TOOLS = [
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

const ITEMS = [
  { role: "user", content: "Which bridge do we take?" },
  {
    role: "assistant",
    content: null,
    tool_calls: [{ id: "call_1", type: "function", function: { name: "map", arguments: "{}" } }],
  },
  { role: "tool", tool_call_id: "call_1", content: "the vermilion bridge is open" },
  { role: "assistant", content: "We take the vermilion bridge." },
];

/** The structured content, which the client has checked against the tool's output schema. */
async function call(client, name, args) {
  const result = await client.callTool({ name, arguments: args });
  assert.ok(!result.isError, `${name}: ${result.content[0].text}`);
  assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent);
  return result.structuredContent;
}

/** Hits in a context. The index may lag behind appends, and says by how much. */
async function found(client, query, id) {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const page = await call(client, "context_search", { query, id });
    if (page.hits.length > 0 || page.lag_items === 0) {
      return page.hits;
    }
    await new Promise((wake) => setTimeout(wake, 50));
  }
  throw new Error("the search index does not catch up");
}

async function exercise(client, era) {
  const listed = await client.listTools();
  assert.deepEqual(listed.tools.map((tool) => tool.name), TOOLS);

  const id = `typescript-${era}-${randomUUID()}`;
  const created = await call(client, "context_create", { id, agent_id: "planner", metadata: { n: 1 } });
  assert.equal(created.created, true);

  const append = { id, items: ITEMS, idempotency_key: "first" };
  const appended = await call(client, "context_append", append);
  assert.deepEqual([appended.first_seq, appended.last_seq], [1, 4]);
  assert.deepEqual(await call(client, "context_append", append), appended, "a retry");

  const window = await call(client, "context_window", { id });
  assert.deepEqual(window.items.map((entry) => entry.item), ITEMS);
  assert.equal(window.tokens, appended.tokens);

  const hits = await found(client, "vermilion", id);
  assert.deepEqual(hits.map((hit) => hit.seq).sort(), [3, 4]);

  const refused = await client.callTool({ name: "context_window", arguments: { id, max_tokens: 0 } });
  assert.equal(refused.isError, true);
  assert.match(refused.content[0].text, /^invalid: max_tokens: /);

  const resource = await client.readResource({ uri: `context://${id}` });
  assert.deepEqual(JSON.parse(resource.contents[0].text).metadata, { n: 1 });
  await assert.rejects(client.readResource({ uri: "context://nowhere" }));

  const handoff = await client.getPrompt({ name: "handoff", arguments: { id } });
  assert.equal(handoff.messages.length, 2);

  await call(client, "context_delete", { id });
  console.log(`ok: typescript, ${era}`);
}

function transport(kind, rest) {
  if (kind === "stdio") {
    return new StdioClientTransport({ command: rest[0], args: rest.slice(1) });
  }
  assert.equal(kind, "http", "the first argument is http or stdio");
  const headers = rest[1] ? { Authorization: `Bearer ${rest[1]}` } : {};
  return new StreamableHTTPClientTransport(new URL(rest[0]), { requestInit: { headers } });
}

const [kind, ...rest] = process.argv.slice(2);
for (const era of ["legacy", "auto"]) {
  const client = new Client({ name: "contextkeep-check", version: "1" }, { versionNegotiation: { mode: era } });
  await client.connect(transport(kind, rest));
  await exercise(client, era);
  await client.close();
}
