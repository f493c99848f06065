#!/usr/bin/env bash
# Does `perf load` measure what wrk measures? Both send the same chat request of 1 KiB in a closed
# loop from core 1 to the simulated provider on core 0, in turn.
#
#   perf/against_wrk.sh [ROUNDS [SECONDS [CONNECTIONS]]]
#
#   BIN   the folder of `deepintshield` and `perf` (target/release)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${1:-3} seconds=${2:-5} connections=${3:-64}
bin=${BIN:-target/release} port=19190
url=http://127.0.0.1:$port/v1/chat/completions
folder=$(mktemp -d)

taskset -c 0 "$bin/deepintshield" provider-sim --listen "127.0.0.1:$port" --completion-tokens 144 >"$folder/provider.log" &
provider=$!
trap 'kill "$provider"; wait "$provider" || true; rm -rf "$folder"' EXIT
until grep -q listening "$folder/provider.log"; do
    kill -0 "$provider"
    sleep 0.05
done

# The very bytes of `perf load`: a prompt as long as it takes.
opening='{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"'
filler=$(printf 'tell me more about it. %.0s' {1..50})
filler=${filler:0:$((1024 - ${#opening} - 4))}
cat >"$folder/post.lua" <<LUA
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '$opening$filler"}]}'
LUA

for round in $(seq "$rounds"); do
    taskset -c 1 "$bin/perf" load --url "$url" --connections "$connections" --seconds "$seconds" --proxy perf |
        awk -v r="$round" '/ throughput | latency_p50 | latency_p99 /{printf "round %s  perf  %-12s %s %s\n", r, $5, $6, $7}'
    taskset -c 1 wrk -t1 -c"$connections" -d"${seconds}s" --latency -s "$folder/post.lua" "$url" |
        awk -v r="$round" '/50%|99%|Requests\/sec|Non-2xx|Socket errors/{print "round " r "  wrk   " $0}'
done
