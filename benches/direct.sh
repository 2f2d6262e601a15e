#!/usr/bin/env bash
# One directory server, called without a µproxy before it (direct.rs), in an ensemble of processes:
#
#   benches/direct.sh latency [ROUNDS]     what the µproxy adds to a lone GETATTR
#   benches/direct.sh create [CALLS]       a durable CREATE alone, and 64 in flight
#   benches/direct.sh files [FILES]        resident memory of the directory server, after so many files
#   benches/direct.sh idle                 resident memory of a µproxy that nobody has called
#
# SLICE and DIRECT name the binaries if they are built already; CORES the cores to run on (default: all).
set -euo pipefail

what=${1:-latency}
amount=${2:-}
cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/var/tmp}/slice-direct.XXXXXX")
server=

finish() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null && timeout 30 tail --pid="$server" -f /dev/null
  fi
  rm -rf "$work"
}
trap finish EXIT

if [ -z "${SLICE:-}" ]; then
  cargo build --release --quiet --bin slice
  SLICE=target/release/slice
fi
if [ -z "${DIRECT:-}" ]; then
  cargo build --release --quiet --example direct
  DIRECT=target/release/examples/direct
fi
pin=()
[ -z "${CORES:-}" ] || pin=(taskset -c "$CORES")

"${pin[@]}" "$SLICE" up --separate --data "$work/data" --listen 127.0.0.1:22060 --no-root-squash > "$work/log" 2>&1 &
server=$!
ensemble=$work/data/ensemble.json
for _ in $(seq 600); do
  [ ! -e "$ensemble" ] || break
  kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done

# Of the first server of a role: what stands behind a key in the file.
of() { sed -n "/\"role\": \"$1\"/,/}/s/.*$2.*/\1/p" "$ensemble" | head -n 1; }
pid='"pid": \([0-9]*\)'
address='"\([0-9.]*:[0-9]*\)"'
args=("$work/data/identity" "$(of dirserver "$address")" 127.0.0.1:22060)

case "$what" in
  latency | create) "${pin[@]}" "$DIRECT" "$what" "${args[@]}" ${amount:+"$amount"} ;;
  files) "${pin[@]}" "$DIRECT" files "${args[@]}" "${amount:-1000000}" "$(of dirserver "$pid")" ;;
  idle) awk '/VmRSS/ { printf "an idle µproxy: %.1f MiB resident\n", $2 / 1024 }' "/proc/$(of proxy "$pid")/status" ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
