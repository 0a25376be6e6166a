-- What a context does by itself when it is over its budget (the name of a strategy, or nothing), and what it was forked
-- from: an id and a seq as they were then, not a reference, so that the parent may go.
ALTER TABLE contexts ADD COLUMN truncation TEXT;
ALTER TABLE contexts ADD COLUMN forked_from TEXT;
ALTER TABLE contexts ADD COLUMN forked_at INTEGER;
CREATE INDEX contexts_forked ON contexts (tenant_no, forked_from, created_at DESC, id DESC)
    WHERE deleted_at IS NULL AND forked_from IS NOT NULL;
