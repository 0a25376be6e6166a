-- Deletes of several contexts in one statement: what a single delete does, for all of them, and one outcome for each.
--
-- 1. The heads are locked in the order of their numbers, as groups of appends lock them: whoever changes several waits
--    for the others, never in a circle.
-- 2. What is decided has a snapshot of its own, taken after the locks. Of a context that stands several times, the first
--    delete whose version fits is the one that happens: those before it are refused, those after it find nothing.
-- 3. A delete that is refused writes nothing and does not keep its neighbours from happening.
--
-- Plans are pinned to index lookups by arrays, because the tables may have no statistics yet.
CREATE FUNCTION contextkeep.delete_many_v1(
    durability text, of_tenant text, ids text[], expected_versions bigint[], now bigint
) RETURNS TABLE (ord integer, outcome text, version bigint) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    ctx_nos bigint[];
    outcomes text[];
    seen_versions bigint[];
    gone bigint[];
    gone_streams bigint[];
BEGIN
    PERFORM set_config('synchronous_commit', durability, true);

    SELECT array_agg(DISTINCT found.ctx_no) INTO ctx_nos
    FROM (SELECT (SELECT c.ctx_no FROM contextkeep.contexts c WHERE c.tenant = of_tenant AND c.id = a.id) AS ctx_no
          FROM unnest(ids) AS a (id)) found;
    PERFORM 1 FROM contextkeep.heads h WHERE h.ctx_no = ANY (ctx_nos) ORDER BY h.ctx_no FOR UPDATE;

    WITH asked AS MATERIALIZED (
        SELECT a.ord, h.ctx_no, h.stream_no, h.version,
               min(a.ord) FILTER (WHERE a.expected IS NULL OR a.expected = h.version) OVER (PARTITION BY h.ctx_no)
                   AS deleting
        FROM unnest(ids, expected_versions) WITH ORDINALITY AS a (id, expected, ord)
        LEFT JOIN LATERAL (
            SELECT h.ctx_no, h.stream_no, h.version
            FROM contextkeep.contexts c JOIN contextkeep.heads h ON h.ctx_no = c.ctx_no
            WHERE c.tenant = of_tenant AND c.id = a.id
              AND h.deleted_at IS NULL AND (h.expires_at IS NULL OR h.expires_at > now)
            LIMIT 1
        ) h ON true
    ), decided AS MATERIALIZED (
        SELECT a.ord, a.ctx_no, a.stream_no,
               CASE
                   WHEN a.ctx_no IS NULL OR a.deleting < a.ord THEN 'missing'
                   WHEN a.deleting = a.ord THEN 'deleted'
                   ELSE 'version'
               END AS outcome,
               CASE WHEN a.deleting = a.ord THEN a.version + 1 ELSE a.version END AS version
        FROM asked a
    )
    SELECT array_agg(d.outcome ORDER BY d.ord), array_agg(d.version ORDER BY d.ord),
           array_agg(d.ctx_no ORDER BY d.ctx_no) FILTER (WHERE d.outcome = 'deleted'),
           array_agg(d.stream_no ORDER BY d.stream_no) FILTER (WHERE d.outcome = 'deleted')
    INTO outcomes, seen_versions, gone, gone_streams
    FROM decided d;

    IF gone IS NOT NULL THEN
        UPDATE contextkeep.contexts c
        SET deleted_at = now, session_id = NULL, name = NULL, description = NULL, metadata = '{}', labels = '{}'
        WHERE c.ctx_no = ANY (gone);

        WITH buried AS (
            UPDATE contextkeep.heads h
            SET version = h.version + 1, item_count = 0, tokens = 0, updated_at = now, deleted_at = now
            WHERE h.ctx_no = ANY (gone) RETURNING h.ctx_no, h.version, h.stream_no, h.next_seq
        )
        INSERT INTO contextkeep.changes (changed_at, ctx_nos, versions, stream_nos, first_seqs, last_seqs)
        SELECT now, array_agg(b.ctx_no), array_agg(b.version), array_agg(b.stream_no), array_agg(b.next_seq),
               array_agg(b.next_seq - 1)
        FROM buried b;

        WITH released AS (
            DELETE FROM contextkeep.spans s WHERE s.stream_no = ANY (gone_streams) RETURNING s.source_no
        )
        INSERT INTO contextkeep.purge_queue (stream_no)
        SELECT r.source_no FROM released r UNION SELECT s.no FROM unnest(gone_streams) AS s (no)
        ORDER BY 1
        ON CONFLICT DO NOTHING;

        DELETE FROM contextkeep.item_keys k WHERE k.ctx_no = ANY (gone);
        DELETE FROM contextkeep.append_keys k WHERE k.ctx_no = ANY (gone);
    END IF;

    RETURN QUERY
        SELECT o.ord::integer, o.outcome, o.version
        FROM unnest(outcomes, seen_versions) WITH ORDINALITY AS o (outcome, version, ord);
END
$$;
