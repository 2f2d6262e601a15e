#!/usr/bin/env bash
# The whole series of measurements, and one report of it:
#
#   deploy/specsfs.sh [--quick] [--out DIR] [--seed N] [--servers "1 2 4 8"] [--policies "partition mkdir:0.8 hash"]
#
# sfs on `slice up` in one process and with a process a server, with each number of servers of each role and each policy; on nfs-ganesha, if it
# is installed (packages nfs-ganesha nfs-ganesha-vfs rpcbind; needs root); on the cluster of deploy/up, if it is up. Then untar, affinity and bulk on
# ensembles of their own. Leaves a JSON file a run and report.html in DIR (default: target/specsfs-DATE). With --quick it takes about a
# quarter of an hour on an idle machine; without, days: the standard measures ten loads of 10 minutes each, on 10 MiB of files for each operation a second.
# Exit status 1 if any run failed or any reply was wrong; the others' results are in the report all the same.
set -euo pipefail

quick=()
sfs=()
out=
seed=1
counts="1 2 4 8"
policies="partition mkdir:0.8 hash"
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) quick=(--quick); sfs=(--warmup 0.5 --measure 1.5); shift; continue ;;
    --out) out=$2 ;;
    --seed) seed=$2 ;;
    --servers) counts=$2 ;;
    --policies) policies=$2 ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done

cd "$(dirname "$0")/.."
: "${out:=target/specsfs-$(date +%Y%m%dT%H%M%S)}"
slice=${SLICE_BIN:-target/release/slice}
[ -n "${SLICE_BIN:-}" ] || cargo build --release --quiet -p slice
mkdir -p "$out"
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/slice-specsfs.XXXXXX")
# Three ports in a row that nobody listens on.
port=${SPECSFS_PORT:-23049}
ganesha_port=$((port + 1))
ganesha_mount_port=$((port + 2))
server=       # pid of the server that runs now
rpcbind=      # pid of the rpcbind that we started, if we did
results=()
failed=0

stop() { # pid
  [ -n "$1" ] || return 0
  kill "$1" 2>/dev/null || return 0
  # A server ends when what it has is safe; one that does not end is ended.
  timeout 60 tail --pid="$1" -f /dev/null || kill -9 "$1" 2>/dev/null || true
}
finish() {
  stop "$server"
  stop "$rpcbind"
  rm -rf "$scratch"
}
trap finish EXIT

load() { # name of the result, workload, its arguments
  local name=$1 workload=$2
  shift 2
  echo "== $name" >&2
  if ! "$slice" load "$workload" "${quick[@]}" --seed "$seed" --json "$out/$name.json" "$@"; then
    echo "$name failed; going on" >&2
    failed=1
  fi
  # A run that was stopped or that had wrong replies has a result too.
  [ ! -f "$out/$name.json" ] || results+=("$out/$name.json")
}

# Waits until something is true of the server that runs now, for two minutes at most. Nothing tells when another process is ready.
ready() { # command
  local i
  for ((i = 0; i < 600; i++)); do
    "$@" 2> /dev/null && return
    kill -0 "$server" 2> /dev/null || break
    sleep 0.2
  done
  echo "the server did not start" >&2
  failed=1
  return 1
}
answers() { (exec 3<> "/dev/tcp/127.0.0.1/$1"); }

on_slice() { # name, label, arguments of `slice up`
  local name=$1 label=$2 data=$scratch/data
  shift 2
  rm -rf "$data"
  "$slice" up --data "$data" --listen "127.0.0.1:$port" --no-root-squash "$@" > "$scratch/log" 2>&1 &
  server=$!
  if ready test -f "$data/ensemble.json"; then
    load "$name" sfs "${sfs[@]}" --target "127.0.0.1:$port" --data "$data" --label "$label"
  else
    tail -n 5 "$scratch/log" >&2
  fi
  stop "$server"
  server=
}

on_ganesha() {
  if ! command -v ganesha.nfsd > /dev/null || ! command -v rpcbind > /dev/null; then
    echo "nfs-ganesha is not installed: no peer in this report" >&2
    return
  fi
  # ganesha.nfsd does not start without a port mapper.
  if ! (exec 3<> /dev/tcp/127.0.0.1/111) 2> /dev/null; then
    rpcbind -f -w &
    rpcbind=$!
  fi
  mkdir -p "$scratch/export"
  cat > "$scratch/conf" << CONF
NFS_CORE_PARAM {
  NFS_Protocols = 3; NFS_Port = $ganesha_port; MNT_Port = $ganesha_mount_port; Bind_addr = 127.0.0.1;
  Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}
EXPORT_DEFAULTS { Access_Type = RW; Squash = No_Root_Squash; SecType = sys; Protocols = 3; Transports = TCP; }
EXPORT { Export_Id = 1; Path = $scratch/export; Pseudo = /bench; FSAL { Name = VFS; } }
LOG { Default_Log_Level = EVENT; }
CONF
  ganesha.nfsd -F -f "$scratch/conf" -L "$scratch/ganesha.log" -p "$scratch/pid" &
  server=$!
  if ready answers "$ganesha_port" && ready answers "$ganesha_mount_port"; then
    load ganesha sfs "${sfs[@]}" --target "127.0.0.1:$ganesha_port:$scratch/export" --mount-port "$ganesha_mount_port" \
      --server-pids "$server" --label "nfs-ganesha (FSAL_VFS)"
  else
    tail -n 5 "$scratch/ganesha.log" >&2
  fi
  stop "$server"
  server=
}

on_compose() {
  # The port under which the cluster of deploy/up is mounted, if it is up.
  local at
  at=$(deploy/compose port proxy 2049 2> /dev/null) || return 0
  [ -n "$at" ] || return 0
  load compose sfs "${sfs[@]}" --target "127.0.0.1:${at##*:}" --uid 65534 --gid 65534 --label "containers (deploy/up)"
}

for policy in $policies; do
  on_slice "one-${policy%%:*}" "$policy, one process" --policy "$policy"
done
on_ganesha
for n in $counts; do
  for policy in $policies; do
    on_slice "separate-${policy%%:*}-$n" "$policy, $n of each role" --policy "$policy" --separate --dirservers "$n" --smallfiles "$n" --blockstores "$n"
  done
done
on_compose
load untar untar --scratch "$scratch" --label "untar"
load affinity affinity --scratch "$scratch" --label "affinity"
load bulk bulk --scratch "$scratch" --label "slice"

if [ ${#results[@]} -gt 0 ]; then
  "$slice" load report "${results[@]}" --html "$out/report.html"
  echo "$out/report.html"
fi
exit "$failed"
