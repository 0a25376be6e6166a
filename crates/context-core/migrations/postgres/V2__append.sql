-- A group of appends in one statement. The number in the name is part of it: servers of two versions run side by
-- side during an upgrade, each with the function that it knows.
--
-- The caller sees to it that, of the appends of one context in a group, client ids and keys differ, and that one that
-- names a version is alone. Under that, the appends do not depend on each other and are decided together:
--
-- 1. The heads are locked in the order of their numbers: groups of several servers wait for each other, never in a
--    circle.
-- 2. The second statement has a snapshot of its own, taken after the locks: it sees every key and every version that
--    an earlier group committed, so that a check cannot be overtaken.
-- 3. An append that is refused writes nothing and does not keep its neighbours from being written.
--
-- Plans are pinned to index lookups, because the tables may have no statistics yet when a server makes its plan.
CREATE FUNCTION contextkeep.append_v1(
    tenants text[], ids text[], nows bigint[], tokenizers text[], expected_versions bigint[], keys text[], fingerprints bytea[],
    owners integer[], item_tokens integer[], item_roles text[], item_kinds text[], item_pinned boolean[], item_kept boolean[],
    item_importances double precision[], item_client_ids text[], item_links text[], item_bodies text[],
    durability text
) RETURNS TABLE (
    ord integer, outcome text, first_seq bigint, last_seq bigint, tokens bigint, version bigint, over_budget boolean,
    seq bigint, detail text, body text
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    ctx_nos bigint[];
BEGIN
    PERFORM set_config('synchronous_commit', durability, true);

    SELECT array_agg(DISTINCT found.ctx_no) INTO ctx_nos
    FROM (SELECT (SELECT c.ctx_no FROM contextkeep.contexts c WHERE c.tenant = a.tenant AND c.id = a.id) AS ctx_no
          FROM unnest(tenants, ids) AS a (tenant, id)) found;
    PERFORM 1 FROM contextkeep.heads h WHERE h.ctx_no = ANY (ctx_nos) ORDER BY h.ctx_no FOR UPDATE;

    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT a.ord::integer AS ord, a.now, a.tokenizer AS counted_with, a.expected, a.key, a.fingerprint, h.*
        FROM unnest(tenants, ids, nows, tokenizers, expected_versions, keys, fingerprints)
             WITH ORDINALITY AS a (tenant, id, now, tokenizer, expected, key, fingerprint, ord)
        LEFT JOIN LATERAL (
            SELECT h.* FROM contextkeep.contexts c JOIN contextkeep.heads h ON h.ctx_no = c.ctx_no
            WHERE c.tenant = a.tenant AND c.id = a.id
              AND h.deleted_at IS NULL AND (h.expires_at IS NULL OR h.expires_at > a.now)
            LIMIT 1
        ) h ON true
    ), given AS MATERIALIZED (
        SELECT i.pos, i.owner, i.tokens, i.role, i.kind, i.pinned, i.kept, i.importance, i.client_id, i.links, i.body,
               a.ctx_no
        FROM unnest(owners, item_tokens, item_roles, item_kinds, item_pinned, item_kept, item_importances,
                    item_client_ids, item_links, item_bodies)
             WITH ORDINALITY
             AS i (owner, tokens, role, kind, pinned, kept, importance, client_id, links, body, pos)
        JOIN asked a ON a.ord = i.owner
    ), known AS MATERIALIZED (
        SELECT g.pos, g.owner, k.seq, k.tokens, k.version, k.over_budget, k.client_id,
               -- A body that was purged can no longer be compared; the key alone decides then.
               CASE WHEN i.body IS DISTINCT FROM g.body THEN i.body END AS other_body
        FROM given g
        CROSS JOIN LATERAL (
            SELECT k.* FROM contextkeep.item_keys k WHERE k.ctx_no = g.ctx_no AND k.client_id = g.client_id LIMIT 1
        ) k
        LEFT JOIN LATERAL (
            SELECT i.body FROM contextkeep.items i WHERE i.stream_no = k.stream_no AND i.seq = k.seq LIMIT 1
        ) i ON true
        WHERE g.client_id IS NOT NULL
    ), counted AS MATERIALIZED (
        SELECT g.owner, count(*) AS items, count(*) FILTER (WHERE k.pos IS NULL) AS new_items,
               coalesce(sum(g.tokens) FILTER (WHERE k.pos IS NULL), 0) AS new_tokens
        FROM given g LEFT JOIN known k ON k.pos = g.pos GROUP BY g.owner
    ), again AS MATERIALIZED (
        SELECT k.owner, sum(k.tokens) AS tokens, min(k.seq) AS first_seq, max(k.seq) AS last_seq,
               max(k.version) AS version, (array_agg(k.over_budget ORDER BY k.version DESC))[1] AS over_budget,
               min(k.pos) FILTER (WHERE k.other_body IS NOT NULL) AS other_pos
        FROM known k GROUP BY k.owner
    ), decided AS MATERIALIZED (
        SELECT a.*, n.new_items, n.new_tokens, g.tokens AS known_tokens, g.first_seq AS known_first, g.last_seq AS known_last,
               g.version AS known_version, g.over_budget AS known_over, g.other_pos,
               u.first_seq AS used_first, u.last_seq AS used_last, u.tokens AS used_tokens, u.version AS used_version,
               u.over_budget AS used_over,
               CASE
                   WHEN a.ctx_no IS NULL THEN 'missing'
                   WHEN a.tokenizer <> a.counted_with THEN 'tokenizer'
                   WHEN u.fingerprint <> a.fingerprint THEN 'key_reused'
                   WHEN u.fingerprint IS NOT NULL THEN 'key_known'
                   WHEN g.other_pos IS NOT NULL THEN 'differs'
                   WHEN n.new_items = 0 THEN 'known'
                   WHEN a.expected <> a.version THEN 'version'
                   ELSE 'new'
               END AS outcome
        FROM asked a
        LEFT JOIN counted n ON n.owner = a.ord
        LEFT JOIN again g ON g.owner = a.ord
        LEFT JOIN LATERAL (
            SELECT u.* FROM contextkeep.append_keys u WHERE u.ctx_no = a.ctx_no AND u.key = a.key LIMIT 1
        ) u ON a.key IS NOT NULL
    ), placed AS MATERIALIZED (
        SELECT d.ord, d.outcome = 'new' AS is_new, d.ctx_no, d.stream_no, d.now, d.key, d.fingerprint, d.new_items, d.new_tokens,
               d.max_tokens, d.known_tokens, d.known_first, d.known_last,
               d.version + row_number() OVER earlier AS version,
               d.next_seq + sum(d.new_items) OVER earlier - d.new_items AS first_seq,
               d.tokens + sum(d.new_tokens) OVER earlier AS tokens_after,
               d.written_tokens + sum(d.new_tokens) OVER earlier - d.new_tokens AS written_before
        FROM decided d
        WINDOW earlier AS (PARTITION BY d.ctx_no, d.outcome = 'new' ORDER BY d.ord)
    ), rows_of AS MATERIALIZED (
        SELECT p.ctx_no, p.stream_no, p.version, p.tokens_after > p.max_tokens AS over_budget,
               (p.first_seq + row_number() OVER within - 1)::bigint AS seq,
               (p.written_before + sum(g.tokens) OVER within)::bigint AS total,
               p.now, g.tokens, g.role, g.kind, g.pinned, g.kept, g.importance, g.client_id, g.links, g.body
        FROM placed p JOIN given g ON g.owner = p.ord AND p.is_new
        WHERE g.client_id IS NULL OR NOT EXISTS (SELECT 1 FROM known k WHERE k.pos = g.pos)
        WINDOW within AS (PARTITION BY p.ord ORDER BY g.pos)
    ), grown AS MATERIALIZED (
        SELECT p.ctx_no, p.stream_no, count(*) AS appends, sum(p.new_items)::bigint AS items,
               sum(p.new_tokens)::bigint AS tokens, max(p.now) AS now, max(p.version) AS version,
               min(p.first_seq)::bigint AS first_seq
        FROM placed p WHERE p.is_new GROUP BY p.ctx_no, p.stream_no
    ), write_heads AS (
        UPDATE contextkeep.heads h
        SET version = h.version + g.appends, next_seq = h.next_seq + g.items, item_count = h.item_count + g.items,
            tokens = h.tokens + g.tokens, written_tokens = h.written_tokens + g.tokens,
            updated_at = greatest(h.updated_at, g.now)
        FROM grown g WHERE h.ctx_no = g.ctx_no
    ), write_items AS (
        INSERT INTO contextkeep.items (stream_no, seq, total, created_at, importance, tokens, pinned, kept, role, kind,
                                       client_id, links, body)
        SELECT r.stream_no, r.seq, r.total, r.now, r.importance, r.tokens, r.pinned, r.kept, r.role, r.kind,
               r.client_id, r.links, r.body
        FROM rows_of r ORDER BY r.stream_no, r.seq
    ), write_item_keys AS (
        INSERT INTO contextkeep.item_keys (ctx_no, stream_no, seq, version, tokens, over_budget, client_id)
        SELECT r.ctx_no, r.stream_no, r.seq, r.version, r.tokens, r.over_budget, r.client_id
        FROM rows_of r WHERE r.client_id IS NOT NULL
    ), write_append_keys AS (
        INSERT INTO contextkeep.append_keys (ctx_no, first_seq, last_seq, tokens, version, created_at, over_budget, key,
                                             fingerprint)
        SELECT p.ctx_no, least(p.first_seq, p.known_first), greatest(p.first_seq + p.new_items - 1, p.known_last),
               p.new_tokens + coalesce(p.known_tokens, 0), p.version, p.now, p.tokens_after > p.max_tokens, p.key,
               p.fingerprint
        FROM placed p WHERE p.is_new AND p.key IS NOT NULL
    ), write_changes AS (
        INSERT INTO contextkeep.changes (changed_at, ctx_nos, versions, stream_nos, first_seqs, last_seqs)
        SELECT max(g.now), array_agg(g.ctx_no), array_agg(g.version), array_agg(g.stream_no), array_agg(g.first_seq),
               array_agg(g.first_seq + g.items - 1)
        FROM grown g HAVING count(*) > 0
    )
    SELECT d.ord, d.outcome,
           CASE d.outcome WHEN 'new' THEN least(p.first_seq, p.known_first)::bigint
                          WHEN 'known' THEN d.known_first ELSE d.used_first END,
           CASE d.outcome WHEN 'new' THEN greatest(p.first_seq + p.new_items - 1, p.known_last)::bigint
                          WHEN 'known' THEN d.known_last ELSE d.used_last END,
           CASE d.outcome WHEN 'new' THEN (p.new_tokens + coalesce(p.known_tokens, 0))::bigint
                          WHEN 'known' THEN d.known_tokens::bigint ELSE d.used_tokens END,
           CASE d.outcome WHEN 'new' THEN p.version WHEN 'known' THEN d.known_version
                          WHEN 'version' THEN d.version ELSE d.used_version END,
           CASE d.outcome WHEN 'new' THEN p.tokens_after > p.max_tokens
                          WHEN 'known' THEN d.known_over ELSE d.used_over END,
           k.seq,
           CASE d.outcome WHEN 'tokenizer' THEN d.tokenizer WHEN 'differs' THEN k.client_id END,
           k.other_body
    FROM decided d
    LEFT JOIN placed p ON p.ord = d.ord
    LEFT JOIN known k ON d.outcome = 'differs' AND k.pos = d.other_pos
    ORDER BY d.ord;
END
$$;

-- The same group, on the assumption that no key was used before: what differs from one append to the next was worked
-- out by the caller, so that a group costs little more than its rows. It answers the contexts that it wrote to. The
-- rest, and after a duplicate key the whole group, which wrote nothing then, goes to append_v1.
--
-- Offsets and running sums count from the group's first item of a context.
CREATE FUNCTION contextkeep.append_fresh_v1(
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
                  h.max_tokens, h.version - g.appends AS version_before, h.next_seq - g.count AS first_seq,
                  h.tokens - g.sum AS tokens_before, h.written_tokens - g.sum AS written_before
    ), given AS (
        SELECT w.ctx_no, w.stream_no, w.first_seq + i.skip AS seq, w.written_before + i.running AS total, w.now,
               w.version_before + i.append AS version,
               w.tokens_before + i.append_running > w.max_tokens AS over_budget, i.*
        FROM unnest(item_owners, item_offsets, item_running, item_appends, item_appends_running, item_tokens, item_roles,
                    item_kinds, item_pinned, item_kept, item_importances, item_client_ids, item_links, item_bodies)
             AS i (owner, skip, running, append, append_running, tokens, role, kind, pinned, kept, importance, client_id,
                   links, body)
        JOIN written w ON w.ord = i.owner
    ), write_items AS (
        INSERT INTO contextkeep.items (stream_no, seq, total, created_at, importance, tokens, pinned, kept, role, kind,
                                       client_id, links, body)
        SELECT g.stream_no, g.seq, g.total, g.now, g.importance, g.tokens, g.pinned, g.kept, g.role, g.kind,
               g.client_id, g.links, g.body
        FROM given g
    ), write_item_keys AS (
        INSERT INTO contextkeep.item_keys (ctx_no, stream_no, seq, version, tokens, over_budget, client_id)
        SELECT g.ctx_no, g.stream_no, g.seq, g.version, g.tokens, g.over_budget, g.client_id
        FROM given g WHERE g.client_id IS NOT NULL
    ), write_append_keys AS (
        INSERT INTO contextkeep.append_keys (ctx_no, first_seq, last_seq, tokens, version, created_at, over_budget, key,
                                             fingerprint)
        SELECT w.ctx_no, w.first_seq + k.first, w.first_seq + k.last, k.tokens, w.version_before + k.append, w.now,
               w.tokens_before + k.running > w.max_tokens, k.key, k.fingerprint
        FROM unnest(key_owners, keys, key_fingerprints, key_firsts, key_lasts, key_tokens, key_appends, key_running)
             AS k (owner, key, fingerprint, first, last, tokens, append, running)
        JOIN written w ON w.ord = k.owner
    ), write_changes AS (
        INSERT INTO contextkeep.changes (changed_at, ctx_nos, versions, stream_nos, first_seqs, last_seqs)
        SELECT max(w.now), array_agg(w.ctx_no), array_agg(w.version), array_agg(w.stream_no), array_agg(w.first_seq),
               array_agg(w.next_seq - 1)
        FROM written w HAVING count(*) > 0
    )
    SELECT w.ord, w.version, w.next_seq, w.tokens, w.max_tokens FROM written w;
END
$$;
