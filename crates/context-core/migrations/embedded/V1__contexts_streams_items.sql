-- The embedded store. Numbers are internal; what clients know are (tenant, id) and seq.

CREATE TABLE tenants (
    tenant_no INTEGER PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE
);

-- What changes rarely. A deleted context stays as a tombstone, so that its version can be continued.
CREATE TABLE contexts (
    ctx_no      INTEGER PRIMARY KEY,
    tenant_no   INTEGER NOT NULL REFERENCES tenants,
    id          TEXT    NOT NULL,
    agent_id    TEXT    NOT NULL,
    session_id  TEXT,
    model_id    TEXT,
    name        TEXT,
    description TEXT,
    metadata    TEXT    NOT NULL,
    labels      TEXT    NOT NULL,
    max_tokens  INTEGER NOT NULL,
    tokenizer   TEXT    NOT NULL,
    expires_at  INTEGER,
    created_at  INTEGER NOT NULL,
    deleted_at  INTEGER,
    UNIQUE (tenant_no, id)
);
CREATE INDEX contexts_newest ON contexts (tenant_no, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX contexts_of_agent ON contexts (tenant_no, agent_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX contexts_of_session ON contexts (tenant_no, session_id, created_at DESC, id DESC)
    WHERE deleted_at IS NULL AND session_id IS NOT NULL;
CREATE INDEX contexts_expiring ON contexts (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX contexts_deleted ON contexts (deleted_at) WHERE deleted_at IS NOT NULL;

-- What every append changes: small, so that an append rewrites little.
CREATE TABLE heads (
    ctx_no         INTEGER PRIMARY KEY REFERENCES contexts,
    version        INTEGER NOT NULL,
    stream_no      INTEGER NOT NULL,
    first_seq      INTEGER NOT NULL,
    next_seq       INTEGER NOT NULL,
    item_count     INTEGER NOT NULL,
    tokens         INTEGER NOT NULL,
    written_tokens INTEGER NOT NULL, -- of all items ever appended; never goes down
    updated_at     INTEGER NOT NULL
);
CREATE INDEX heads_of_stream ON heads (stream_no);

-- An append-only run of items. `indexed_rid` is how far the search index has got.
CREATE TABLE streams (
    stream_no   INTEGER PRIMARY KEY AUTOINCREMENT,
    ctx_no      INTEGER NOT NULL,
    indexed_rid INTEGER NOT NULL
);

-- Which items a stream is made of: its own, and ranges of the streams that it was forked or truncated from.
CREATE TABLE spans (
    stream_no INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    source_no INTEGER NOT NULL,
    PRIMARY KEY (stream_no, first_seq)
) WITHOUT ROWID;
CREATE INDEX spans_of_source ON spans (source_no, first_seq);

-- rid = stream_no << 32 | seq: the items of a stream lie next to each other, a window is one range scan.
CREATE TABLE items (
    rid        INTEGER PRIMARY KEY,
    tokens     INTEGER NOT NULL,
    total      INTEGER NOT NULL, -- written_tokens after this item: a range's tokens are a difference
    created_at INTEGER NOT NULL,
    role       TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    pinned     INTEGER NOT NULL,
    kept       INTEGER NOT NULL, -- in every window
    importance REAL,
    client_id  TEXT,
    links      TEXT,             -- calls made and answered
    body       TEXT    NOT NULL  -- exactly as sent
);
CREATE INDEX items_kept ON items (rid) WHERE kept = 1;

-- Client ids: an item is stored once for each.
CREATE TABLE item_keys (
    ctx_no      INTEGER NOT NULL,
    client_id   TEXT    NOT NULL,
    rid         INTEGER NOT NULL,
    tokens      INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    over_budget INTEGER NOT NULL,
    PRIMARY KEY (ctx_no, client_id)
) WITHOUT ROWID;

-- Idempotency keys: a retried append answers what the first one answered.
CREATE TABLE append_keys (
    ctx_no      INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    first_seq   INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,
    tokens      INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    over_budget INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (ctx_no, key)
) WITHOUT ROWID;
CREATE INDEX append_keys_oldest ON append_keys (created_at);

-- Streams that may have items which nothing reaches any more.
CREATE TABLE purge_queue (
    stream_no INTEGER PRIMARY KEY
);

-- Full text, fed outside the append path. `scope` holds the tenant, so that a search never walks through
-- another tenant's hits.
CREATE VIRTUAL TABLE search USING fts5 (
    scope, body,
    content = '', contentless_delete = 1, tokenize = "unicode61 remove_diacritics 2"
);
