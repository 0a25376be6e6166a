#!/usr/bin/env bash
# Entry point of a replica: copies the primary on its first start, then follows it.
set -euo pipefail

if [ ! -d "$PGDATA" ]; then
  export PGPASSWORD=$POSTGRES_PASSWORD
  # What a copy that was broken off has left would stop the next one, its replication slot too.
  rm -rf "$PGDATA.incoming"
  psql "host=postgres-primary user=$POSTGRES_USER dbname=$POSTGRES_DB" --quiet --output=/dev/null \
    --set=ON_ERROR_STOP=1 --set=slot="$REPLICA_NAME" <<'SQL'
select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = :'slot' and not active;
SQL
  pg_basebackup --pgdata="$PGDATA.incoming" --wal-method=stream --checkpoint=fast --write-recovery-conf \
    --create-slot --slot="$REPLICA_NAME" \
    --dbname="host=postgres-primary user=replicator application_name=$REPLICA_NAME"
  # On the same volume: it is there whole or not at all.
  mv "$PGDATA.incoming" "$PGDATA"
  unset PGPASSWORD
fi
exec postgres -c hot_standby=on -c max_connections=200
