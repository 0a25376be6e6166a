#!/usr/bin/env bash
# One node of the cluster, on port $1. It is a cache: nothing is written to disk.
set -euo pipefail

port=$1
announce=()
[ -z "${ANNOUNCE_IP:-}" ] || announce=(--cluster-announce-ip "$ANNOUNCE_IP")
exec redis-server --port "$port" --cluster-enabled yes --cluster-node-timeout 2000 \
  --cluster-config-file "nodes-$port.conf" --protected-mode no --save '' --appendonly no \
  --repl-diskless-sync-delay 0 "${announce[@]}"
