#!/bin/sh
# Imports conversations, asks for the window of each, exports them again and compares byte for byte.
#
#   cargo run --release &                       # in one shell, or in the background
#   docs/examples/transcripts.sh FILE           # OpenAI chat lines: {"id": ..., "messages": [...]}
#
# CONTEXTKEEP_URL names another server, CONTEXTKEEP_TOKEN is sent as its credential, BUDGET is the size of the
# windows in tokens. Needs curl and the tools of every Unix. The contexts stay in the server.
set -eu

file=${1:?"usage: $0 FILE"}
url=${CONTEXTKEEP_URL:-http://127.0.0.1:7400}
budget=${BUDGET:-2000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ask() {
    curl --silent --show-error --max-time 60 \
        ${CONTEXTKEEP_TOKEN:+--header "Authorization: Bearer $CONTEXTKEEP_TOKEN"} "$@"
}

ask --fail-with-body --header 'Content-Type: application/x-ndjson' --data-binary "@$file" "$url/v1/import"
echo

# The answers are JSON on one line; these two fields are the first of their name in it.
field() {
    sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" "$2" | head -n 1
}

count=0
while IFS= read -r line; do
    id=$(printf '%s\n' "$line" | sed 's/^{"id": *"\([^"]*\)".*/\1/')
    status=$(ask --output "$work/window" --write-out '%{http_code}' "$url/v1/contexts/$id/window?max_tokens=$budget")
    if [ "$status" = 422 ]; then
        minimum=$(field minimum "$work/window")
        echo "$id: $budget tokens are too few, $minimum are enough"
        ask --fail-with-body --output "$work/window" "$url/v1/contexts/$id/window?max_tokens=$minimum"
    elif [ "$status" != 200 ]; then
        cat "$work/window" >&2
        exit 1
    fi
    ask --fail-with-body "$url/v1/contexts/$id/export?format=openai-chat" >>"$work/export"
    count=$((count + 1))
done <"$file"

cmp "$file" "$work/export"
echo "$count conversations left as they came"
