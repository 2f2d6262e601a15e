#!/usr/bin/env bash
# Slice beside nfs-ganesha: the same load on each in turn, several rounds, medians, as a table of ratios.
#
#   benches/compare.sh [--rounds N] [--seconds S] [--ops "null getattr …"] [--cores LIST] [--only "ganesha slice …"]
#                      [--policy P] [--results FILE]
#
# Servers and load share the cores of --cores (default: core 1 alone): CPU µs a call is steadiest so. Figures are
# comparable only within one run. SLICE and LOAD name the binaries if they are built already. Needs root (ganesha's FSAL_VFS opens files by handle; rpcbind) and the Debian packages
# nfs-ganesha nfs-ganesha-vfs rpcbind, which it installs if they are missing.
set -euo pipefail

rounds=3
seconds=3
cores=1
policy=hash
only="ganesha slice separate"
ops="null getattr lookup access create-remove read4k write4k write4k-sync untar seqwrite seqread readdirplus"
results=

while [ $# -gt 0 ]; do
  case "$1" in
    --rounds) rounds=$2 ;;
    --seconds) seconds=$2 ;;
    --ops) ops=$2 ;;
    --cores) cores=$2 ;;
    --only) only=$2 ;;
    --policy) policy=$2 ;;
    --results) results=$2 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done

cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/var/tmp}/slice-compare.XXXXXX")
: "${results:=target/compare-$(date +%Y%m%dT%H%M%S).jsonl}"
mkdir -p "$(dirname "$results")"
load=${LOAD:-target/release/slice-load}
slice=${SLICE:-target/release/slice}

# Ports of our own, so that a server that runs already is left alone.
ganesha_port=22049
ganesha_mount_port=22048
slice_port=22050

server=       # pid of the server that runs now
rpcbind=      # pid of the rpcbind that we started, if we did

stop() {
  [ -n "$1" ] || return 0
  kill "$1" 2>/dev/null || return 0
  # A server ends when what it has is safe; one that does not end is ended.
  timeout 30 tail --pid="$1" -f /dev/null && return
  echo "process $1 did not end in 30 s and is killed" >&2
  kill -9 "$1" 2>/dev/null || true
}
finish() {
  stop "$server"
  stop "$rpcbind"
  rm -rf "$work"
}
trap finish EXIT

want() { case " $only " in *" $1 "*) true ;; *) false ;; esac; }

need_ganesha() {
  if ! command -v ganesha.nfsd >/dev/null || ! command -v rpcbind >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nfs-ganesha nfs-ganesha-vfs rpcbind >&2
  fi
  # ganesha.nfsd does not start without a port mapper.
  if ! (exec 3<>/dev/tcp/127.0.0.1/111) 2>/dev/null; then
    rpcbind -f -w &
    rpcbind=$!
  fi
}

start_ganesha() {
  mkdir -p "$work/ganesha/export"
  cat > "$work/ganesha/conf" <<CONF
NFS_CORE_PARAM {
  NFS_Protocols = 3; NFS_Port = $ganesha_port; MNT_Port = $ganesha_mount_port; Bind_addr = 127.0.0.1;
  Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}
EXPORT_DEFAULTS { Access_Type = RW; Squash = No_Root_Squash; SecType = sys; Protocols = 3; Transports = TCP; }
EXPORT { Export_Id = 1; Path = $work/ganesha/export; Pseudo = /bench; FSAL { Name = VFS; } }
LOG { Default_Log_Level = EVENT; }
CONF
  taskset -c "$cores" ganesha.nfsd -F -f "$work/ganesha/conf" -L "$work/ganesha/log" -p "$work/ganesha/pid" &
  server=$!
  where=(--target "127.0.0.1:$ganesha_port" --mount-port "$ganesha_mount_port" --export "$work/ganesha/export")
  who=(--server-pids "$server")
}

start_slice() { # label, further flags
  local label=$1
  shift
  rm -rf "${work:?}/$label"
  mkdir -p "$work/$label"
  taskset -c "$cores" "$slice" up --data "$work/$label/data" --listen "127.0.0.1:$slice_port" --policy "$policy" \
    --no-root-squash "$@" > "$work/$label/log" 2>&1 &
  server=$!
  where=(--target "127.0.0.1:$slice_port" --export /)
  who=(--ensemble "$work/$label/data/ensemble.json")
}

announced() { # label: a mount answers before the last server has come; then `slice up` writes ensemble.json and says so
  [ "$1" != ganesha ] || return 0
  local look
  for look in $(seq 600); do
    ! grep -q 'mount -t nfs' "$work/$1/log" || return 0
    kill -0 "$server" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}

begin() { # label: starts it. Tried again if it does not come up: seen once with ganesha, the cause not found
  local label=$1 attempt
  for attempt in 1 2 3; do
    case "$label" in
      ganesha) start_ganesha ;;
      slice) start_slice slice ;;
      separate) start_slice separate --separate ;;
    esac
    "$load" wait "${where[@]}" --pid "$server" --timeout 60 && announced "$label" && return
    echo "$label did not start (attempt $attempt); the end of its log:" >&2
    tail -n 20 "$work/$label/log" >&2 || true
    end
  done
  return 1
}

end() {
  stop "$server"
  server=
}

measure() { # label
  local label=$1 shape
  for op in $ops; do
    case "$op" in
      seqwrite | seqread) shape="2x4" ;;
      readdirplus) shape="4x1" ;;
      null | getattr) shape="1x1 4x16 8x16 1x64" ;;
      *) shape="4x16" ;;
    esac
    for s in $shape; do
      if ! taskset -c "$cores" "$load" micro "${where[@]}" "${who[@]}" --label "$label" --op "$op" --conns "${s%x*}" \
        --inflight "${s#*x}" --seconds "$seconds" --json >> "$results"; then
        echo "$label $op $s failed; going on" >&2
      fi
    done
  done
}

if [ -z "${SLICE:-}" ] && { want slice || want separate; }; then cargo build --release --quiet --bin slice; fi
[ -n "${LOAD:-}" ] || cargo build --release --quiet -p slice-load
if want ganesha; then need_ganesha; fi

for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  for label in ganesha slice separate; do
    want "$label" || continue
    begin "$label" || continue
    measure "$label"
    end
  done
done

echo "$rounds rounds of ${seconds}s an operation, server and load on core(s) $cores; results in $results" >&2
base=ganesha
want ganesha || base=${only%% *}
"$load" compare --base "$base" "$results"
