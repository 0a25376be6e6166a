-- append_fresh_v1 for groups that mostly have neither keys nor client ids: the tables of keys are not even opened then. A
-- column that is NULL for all items may be an empty array.
CREATE FUNCTION contextkeep.append_fresh_v2(
    durability text,
    tenants text[], ids text[], nows bigint[], tokenizers text[], expected_versions bigint[], appends bigint[],
    counts bigint[], sums bigint[],
    item_owners integer[], item_offsets bigint[], item_running bigint[], item_appends bigint[],
    item_appends_running bigint[],
    item_tokens integer[], item_roles text[], item_kinds text[], item_pinned boolean[], item_kept boolean[],
    item_importances double precision[], item_client_ids text[], item_links text[], item_bodies text[],
    key_owners integer[], keys text[], key_fingerprints bytea[], key_firsts bigint[], key_lasts bigint[],
    key_tokens bigint[], key_appends bigint[], key_running bigint[]
) RETURNS TABLE (ord integer, version bigint, next_seq bigint, tokens bigint, max_tokens bigint) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    IF cardinality(keys) > 0 OR cardinality(item_client_ids) > 0 THEN
        RETURN QUERY SELECT * FROM contextkeep.append_fresh_v1(
            durability, tenants, ids, nows, tokenizers, expected_versions, appends, counts, sums, item_owners,
            item_offsets, item_running, item_appends, item_appends_running, item_tokens, item_roles, item_kinds,
            item_pinned, item_kept, item_importances, item_client_ids, item_links, item_bodies, key_owners, keys,
            key_fingerprints, key_firsts, key_lasts, key_tokens, key_appends, key_running
        );
        RETURN;
    END IF;
    PERFORM set_config('synchronous_commit', durability, true);
    RETURN QUERY
    WITH written AS (
        UPDATE contextkeep.heads h
        SET version = h.version + g.appends, next_seq = h.next_seq + g.count, item_count = h.item_count + g.count,
            tokens = h.tokens + g.sum, written_tokens = h.written_tokens + g.sum,
            updated_at = greatest(h.updated_at, g.now)
        FROM (
            SELECT a.*, (SELECT c.ctx_no FROM contextkeep.contexts c WHERE c.tenant = a.tenant AND c.id = a.id) AS ctx_no
            FROM unnest(tenants, ids, nows, tokenizers, expected_versions, appends, counts, sums)
                 WITH ORDINALITY AS a (tenant, id, now, tokenizer, expected, appends, count, sum, ord)
            ORDER BY ctx_no
        ) g
        WHERE h.ctx_no = g.ctx_no AND h.deleted_at IS NULL AND (h.expires_at IS NULL OR h.expires_at > g.now)
          AND h.tokenizer = g.tokenizer AND (g.expected IS NULL OR h.version = g.expected)
        RETURNING g.ord::integer AS ord, g.now, g.count, h.ctx_no, h.stream_no, h.version, h.next_seq, h.tokens,
                  h.max_tokens, h.next_seq - g.count AS first_seq, h.written_tokens - g.sum AS written_before
    ), write_items AS (
        INSERT INTO contextkeep.items (stream_no, seq, total, created_at, importance, tokens, pinned, kept, role,
                                       kind, links, body)
        SELECT w.stream_no, w.first_seq + i.skip, w.written_before + i.running, w.now, i.importance, i.tokens,
               i.pinned, i.kept, i.role, i.kind, i.links, i.body
        FROM unnest(item_owners, item_offsets, item_running, item_tokens, item_roles, item_kinds, item_pinned,
                    item_kept, item_importances, item_links, item_bodies)
             AS i (owner, skip, running, tokens, role, kind, pinned, kept, importance, links, body)
        JOIN written w ON w.ord = i.owner
    ), write_changes AS (
        INSERT INTO contextkeep.changes (changed_at, ctx_nos, versions, stream_nos, first_seqs, last_seqs)
        SELECT max(w.now), array_agg(w.ctx_no), array_agg(w.version), array_agg(w.stream_no), array_agg(w.first_seq),
               array_agg(w.next_seq - 1)
        FROM written w HAVING count(*) > 0
    )
    SELECT w.ord, w.version, w.next_seq, w.tokens, w.max_tokens FROM written w;
END
$$;
