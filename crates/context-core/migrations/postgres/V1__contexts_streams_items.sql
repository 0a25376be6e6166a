-- The Postgres store. Numbers are internal; what clients know are (tenant, id) and seq. Texts that are compared
-- byte by byte are COLLATE "C", so that their order is the same on every server.

-- What changes rarely. A deleted context stays as a tombstone, so that its version can be continued.
CREATE TABLE contextkeep.contexts (
    ctx_no      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at  bigint NOT NULL,
    deleted_at  bigint,
    tenant      text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    agent_id    text COLLATE "C" NOT NULL,
    session_id  text COLLATE "C",
    model_id    text,
    name        text,
    description text,
    metadata    text NOT NULL,
    labels      text[] NOT NULL,
    UNIQUE (tenant, id)
);
CREATE INDEX contexts_newest ON contextkeep.contexts (tenant, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX contexts_of_agent ON contextkeep.contexts (tenant, agent_id, created_at DESC, id DESC)
    WHERE deleted_at IS NULL;
CREATE INDEX contexts_of_session ON contextkeep.contexts (tenant, session_id, created_at DESC, id DESC)
    WHERE deleted_at IS NULL AND session_id IS NOT NULL;
CREATE INDEX contexts_deleted ON contextkeep.contexts (deleted_at) WHERE deleted_at IS NOT NULL;

-- What every append changes or asks: small, with room on its page and no index on what an append changes, so that
-- updates stay on the page. What is asked stands here and not in `contexts`: a statement that waited for the lock
-- sees this row as it is now, and all other rows as they were when it began.
CREATE TABLE contextkeep.heads (
    ctx_no         bigint PRIMARY KEY,
    version        bigint NOT NULL,
    stream_no      bigint NOT NULL,
    first_seq      bigint NOT NULL,
    next_seq       bigint NOT NULL,
    item_count     bigint NOT NULL,
    tokens         bigint NOT NULL,
    written_tokens bigint NOT NULL, -- of all items ever appended; never goes down
    max_tokens     bigint NOT NULL,
    updated_at     bigint NOT NULL,
    expires_at     bigint,
    deleted_at     bigint,
    tokenizer      text NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX heads_expiring ON contextkeep.heads (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;

-- An append-only run of items.
CREATE TABLE contextkeep.streams (
    stream_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ctx_no    bigint NOT NULL
);
CREATE INDEX streams_of_context ON contextkeep.streams (ctx_no);

-- Which items a stream is made of: its own, and ranges of the streams that it was forked or truncated from.
CREATE TABLE contextkeep.spans (
    stream_no bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq  bigint NOT NULL,
    source_no bigint NOT NULL,
    PRIMARY KEY (stream_no, first_seq)
);
CREATE INDEX spans_of_source ON contextkeep.spans (source_no, first_seq);

CREATE TABLE contextkeep.items (
    stream_no  bigint  NOT NULL,
    seq        bigint  NOT NULL,
    total      bigint  NOT NULL, -- written_tokens after this item: a range's tokens are a difference
    created_at bigint  NOT NULL,
    importance double precision,
    tokens     integer NOT NULL,
    pinned     boolean NOT NULL,
    kept       boolean NOT NULL, -- in every window
    role       text    NOT NULL,
    kind       text    NOT NULL,
    client_id  text,
    links      text,             -- calls made and answered
    body       text    NOT NULL, -- exactly as sent
    PRIMARY KEY (stream_no, seq)
);
CREATE INDEX items_kept ON contextkeep.items (stream_no, seq) WHERE kept;

-- Client ids: an item is stored once for each.
CREATE TABLE contextkeep.item_keys (
    ctx_no      bigint  NOT NULL,
    stream_no   bigint  NOT NULL,
    seq         bigint  NOT NULL,
    version     bigint  NOT NULL,
    tokens      integer NOT NULL,
    over_budget boolean NOT NULL,
    client_id   text COLLATE "C" NOT NULL,
    PRIMARY KEY (ctx_no, client_id)
);

-- Idempotency keys: a retried append answers what the first one answered.
CREATE TABLE contextkeep.append_keys (
    ctx_no      bigint  NOT NULL,
    first_seq   bigint  NOT NULL,
    last_seq    bigint  NOT NULL,
    tokens      bigint  NOT NULL,
    version     bigint  NOT NULL,
    created_at  bigint  NOT NULL,
    over_budget boolean NOT NULL,
    key         text COLLATE "C" NOT NULL,
    fingerprint bytea   NOT NULL,
    PRIMARY KEY (ctx_no, key)
);
CREATE INDEX append_keys_oldest ON contextkeep.append_keys (created_at);

-- The outbox: one row for each transaction, with the contexts that it changed and the new items of each, if there are
-- any. Numbers are given before the commit, so a reader takes only rows whose transaction is older than every one that
-- still runs.
CREATE TABLE contextkeep.changes (
    xid        xid8     NOT NULL DEFAULT pg_current_xact_id(),
    change_no  bigint   GENERATED ALWAYS AS IDENTITY,
    changed_at bigint   NOT NULL,
    ctx_nos    bigint[] NOT NULL,
    versions   bigint[] NOT NULL,
    stream_nos bigint[] NOT NULL,
    first_seqs bigint[] NOT NULL,
    last_seqs  bigint[] NOT NULL,
    PRIMARY KEY (xid, change_no)
);

-- How far the search index has got in `changes`. One row.
CREATE TABLE contextkeep.indexing (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    xid       xid8   NOT NULL,
    change_no bigint NOT NULL
);
INSERT INTO contextkeep.indexing (xid, change_no) VALUES ('0', 0);

-- Full text, fed outside the append path. A vector holds the tenant and the stream as words that no text has, so
-- that a search never walks through another tenant's hits.
CREATE TABLE contextkeep.words (
    stream_no bigint   NOT NULL,
    seq       bigint   NOT NULL,
    vector    tsvector NOT NULL,
    PRIMARY KEY (stream_no, seq)
);
CREATE INDEX words_found ON contextkeep.words USING gin (vector);

-- Streams that may have items which nothing reaches any more.
CREATE TABLE contextkeep.purge_queue (
    stream_no bigint PRIMARY KEY
);
