-- How far the outbox was told to the cache that servers share. One row, and no transaction keeps it locked: who tells
-- holds it by name and for a limited time. Whatever was told before this table was there is told once more.
CREATE TABLE contextkeep.relaying (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    overtaken  boolean NOT NULL,     -- rows of `changes` were purged that were not told
    change_no  bigint  NOT NULL,
    xid        xid8    NOT NULL,
    after_ctx  bigint,               -- how far a walk over all heads is, while there is one
    held_until timestamptz NOT NULL, -- by the clock of the database
    holder     text    NOT NULL
) WITH (fillfactor = 50);
INSERT INTO contextkeep.relaying (overtaken, change_no, xid, held_until, holder) VALUES (true, 0, '0', '-infinity', '');
