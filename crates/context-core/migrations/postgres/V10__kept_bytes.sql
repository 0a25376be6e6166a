-- tail_items_v1 was bounded by bytes in the run only: pinned items of a megabyte each are many megabytes.

-- What a window is made of: `part` is `r` for the newest items without a gap, newest first; `b` for the one that comes
-- right before them (its kind only); `k` for older instructions and pinned items, oldest first,
-- or, in the place of what would be over bytes_max, one `o` with their bytes so far as seq.
CREATE FUNCTION contextkeep.tail_items_v2(
    of_stream bigint, first bigint, last bigint, tokens_max bigint, items_max bigint, bytes_max bigint
) RETURNS TABLE (
    part text, seq bigint, created_at bigint, importance double precision, tokens integer, pinned boolean, role text,
    kind text, client_id text, links text, body text
) LANGUAGE plpgsql STABLE ROWS 64 AS $$
#variable_conflict use_column
DECLARE
    span record;
    item record;
    taken bigint := 0;
    tokens_taken bigint := 0;
    bytes_taken bigint := 0;
    oldest bigint := last + 1;
BEGIN
    <<run>>
    FOR span IN
        SELECT p.source_no, greatest(p.first_seq, first) AS low, least(p.last_seq, last) AS high
        FROM contextkeep.spans p
        WHERE p.stream_no = of_stream AND p.first_seq <= last AND p.last_seq >= first ORDER BY p.first_seq DESC
    LOOP
        FOR item IN
            SELECT i.* FROM contextkeep.items i
            WHERE i.stream_no = span.source_no AND i.seq >= span.low AND i.seq <= span.high ORDER BY i.seq DESC
        LOOP
            tokens_taken := tokens_taken + item.tokens;
            bytes_taken := bytes_taken + octet_length(item.body);
            kind := item.kind;
            IF tokens_taken > tokens_max OR bytes_taken > bytes_max OR taken >= items_max THEN
                part := 'b';
                seq := NULL; created_at := NULL; importance := NULL; tokens := NULL; pinned := NULL; role := NULL;
                client_id := NULL; links := NULL; body := NULL;
                RETURN NEXT;
                EXIT run;
            END IF;
            taken := taken + 1;
            oldest := item.seq;
            part := 'r';
            seq := item.seq; created_at := item.created_at; importance := item.importance; tokens := item.tokens;
            pinned := item.pinned; role := item.role; client_id := item.client_id; links := item.links;
            body := item.body;
            RETURN NEXT;
        END LOOP;
    END LOOP;

    bytes_taken := 0;
    FOR item IN
        SELECT i.* FROM contextkeep.spans p
        CROSS JOIN LATERAL (
            SELECT i.* FROM contextkeep.items i
            WHERE i.stream_no = p.source_no AND i.kept AND i.seq >= greatest(p.first_seq, first)
              AND i.seq <= least(p.last_seq, oldest - 1)
            ORDER BY i.seq LIMIT items_max
        ) i
        WHERE p.stream_no = of_stream AND p.first_seq < oldest AND p.last_seq >= first
        ORDER BY p.first_seq, i.seq LIMIT items_max
    LOOP
        bytes_taken := bytes_taken + octet_length(item.body);
        kind := item.kind;
        IF bytes_taken > bytes_max THEN
            part := 'o';
            seq := bytes_taken; created_at := NULL; importance := NULL; tokens := NULL; pinned := NULL; role := NULL;
            client_id := NULL; links := NULL; body := NULL;
            RETURN NEXT;
            RETURN;
        END IF;
        part := 'k';
        seq := item.seq; created_at := item.created_at; importance := item.importance; tokens := item.tokens;
        pinned := item.pinned; role := item.role; client_id := item.client_id; links := item.links; body := item.body;
        RETURN NEXT;
    END LOOP;
END
$$;
