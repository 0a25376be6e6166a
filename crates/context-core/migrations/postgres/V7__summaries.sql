-- Summaries of ranges of contexts. They do not point at the items that they were made of, which may be truncated; they go
-- with the context.
CREATE TABLE contextkeep.summaries (
    ctx_no     bigint NOT NULL,
    first_seq  bigint NOT NULL,
    last_seq   bigint NOT NULL,
    created_at bigint NOT NULL,
    tokens     bigint NOT NULL,
    kind       text   NOT NULL,
    source     bytea  NOT NULL,
    text       text   NOT NULL,
    PRIMARY KEY (ctx_no, kind, first_seq, last_seq)
);

-- delete_many_v1, and the summaries of what it deleted.
CREATE FUNCTION contextkeep.delete_many_v2(
    durability text, of_tenant text, ids text[], expected_versions bigint[], now bigint
) RETURNS TABLE (ord integer, outcome text, version bigint) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT * FROM contextkeep.delete_many_v1(durability, of_tenant, ids, expected_versions, now);
    DELETE FROM contextkeep.summaries s WHERE s.ctx_no = ANY (ARRAY(
        SELECT c.ctx_no FROM contextkeep.contexts c JOIN contextkeep.heads h ON h.ctx_no = c.ctx_no
        WHERE c.tenant = of_tenant AND c.id = ANY (ids) AND h.deleted_at IS NOT NULL));
END
$$;
