-- Summaries of ranges of contexts. They do not point at the items that they were made of, which may be truncated; they go
-- with the context.
CREATE TABLE summaries (
    ctx_no     INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    first_seq  INTEGER NOT NULL,
    last_seq   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    tokens     INTEGER NOT NULL,
    source     BLOB    NOT NULL,
    text       TEXT    NOT NULL,
    PRIMARY KEY (ctx_no, kind, first_seq, last_seq)
) WITHOUT ROWID;
