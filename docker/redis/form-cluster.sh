#!/usr/bin/env bash
# Joins the nodes on the given ports to one cluster; run again, it leaves a whole cluster alone. One that is not whole
# (the containers came back with another address, say) is formed anew: it is a cache.
set -euo pipefail

ip=${ANNOUNCE_IP:-$(hostname -i | cut -d' ' -f1)}
ports=("$@")

whole() { # every node finds all slots served, at the present address
  local port info
  for port in "${ports[@]}"; do
    info=$(redis-cli -p "$port" cluster info)
    grep -q '^cluster_state:ok' <<<"$info" && grep -q "^cluster_known_nodes:${#ports[@]}" <<<"$info" || return 1
    redis-cli -p "$port" cluster nodes | grep myself | grep -q " $ip:$port@" || return 1
  done
}
wait_whole() {
  local tries
  for ((tries = 0; tries < 60; tries++)); do
    ! whole || return 0
    sleep 0.5
  done
  return 1
}

if whole; then
  echo 'the cluster is whole'
  exit 0
fi
for port in "${ports[@]}"; do
  redis-cli -p "$port" flushall >/dev/null
  redis-cli -p "$port" cluster reset hard >/dev/null
done
redis-cli --cluster create "${ports[@]/#/$ip:}" --cluster-yes
wait_whole
echo 'the cluster is formed'
