-- What items mean, for searches by meaning: vectors, fed behind the search index. A model whose name was taken away has
-- not been used for long; the purge removes what is of it.
CREATE TABLE embedding_models (
    model_no   INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT,
    dimensions INTEGER NOT NULL,
    used_at    INTEGER NOT NULL,
    UNIQUE (name, dimensions)
);

-- How far each stream is, for each model. `news` counts what the search index has told of it; `due_at` says from when on
-- somebody may take it on, and is absent when there is nothing to do.
CREATE TABLE embedding (
    model_no  INTEGER NOT NULL,
    stream_no INTEGER NOT NULL,
    done_seq  INTEGER NOT NULL,
    news      INTEGER NOT NULL,
    due_at    INTEGER,
    PRIMARY KEY (model_no, stream_no)
) WITHOUT ROWID;
CREATE INDEX embedding_due ON embedding (model_no, due_at, stream_no) WHERE due_at IS NOT NULL;

-- The tenant, the time and the role are those of the item, so that a search looks at nothing else.
CREATE TABLE vectors (
    rid        INTEGER NOT NULL,
    model_no   INTEGER NOT NULL,
    tenant_no  INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    role       TEXT    NOT NULL,
    vector     BLOB    NOT NULL, -- a scale (f32, little-endian), then a signed byte for each component
    UNIQUE (rid, model_no)
);
CREATE INDEX vectors_newest ON vectors (model_no, tenant_no, created_at DESC, rid DESC);
