-- What items mean, for searches by meaning: vectors, fed behind the search index. A model whose name was taken away has
-- not been used for long; the purge removes what is of it.
CREATE TABLE contextkeep.embedding_models (
    model_no   bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    used_at    bigint  NOT NULL,
    dimensions integer NOT NULL,
    name       text COLLATE "C",
    UNIQUE (name, dimensions)
);

-- How far each stream is, for each model. `news` counts what the search index has told of it; `due_at` says from when on
-- somebody may take it on, and is absent when there is nothing to do.
CREATE TABLE contextkeep.embedding (
    model_no  bigint NOT NULL,
    stream_no bigint NOT NULL,
    done_seq  bigint NOT NULL,
    news      bigint NOT NULL,
    due_at    bigint,
    PRIMARY KEY (stream_no, model_no)
);
CREATE INDEX embedding_due ON contextkeep.embedding (model_no, due_at, stream_no) WHERE due_at IS NOT NULL;

-- The tenant, the time and the role are those of the item, so that a search looks at nothing else. Vectors do not
-- compress, so nobody tries to.
CREATE TABLE contextkeep.vectors (
    stream_no  bigint NOT NULL,
    seq        bigint NOT NULL,
    model_no   bigint NOT NULL,
    created_at bigint NOT NULL,
    tenant     text COLLATE "C" NOT NULL,
    role       text   NOT NULL,
    vector     bytea  NOT NULL, -- a scale (f32, little-endian), then a signed byte for each component
    PRIMARY KEY (stream_no, seq, model_no)
);
ALTER TABLE contextkeep.vectors ALTER COLUMN vector SET STORAGE EXTERNAL;
CREATE INDEX vectors_newest ON contextkeep.vectors (model_no, tenant, created_at, stream_no, seq);
