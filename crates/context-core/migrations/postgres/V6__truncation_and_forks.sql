-- What a context does by itself when it is over its budget (the name of a strategy, or nothing), and what it was forked
-- from: an id and a seq as they were then, not a reference, so that the parent may go.
ALTER TABLE contextkeep.contexts
    ADD COLUMN truncation  text,
    ADD COLUMN forked_from text COLLATE "C",
    ADD COLUMN forked_at   bigint;
CREATE INDEX contexts_forked ON contextkeep.contexts (tenant, forked_from, created_at DESC, id DESC)
    WHERE deleted_at IS NULL AND forked_from IS NOT NULL;
