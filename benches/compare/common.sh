# Sourced by the scripts beside it: a place for a run, daemons that end with it, words for tables.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${CARGO_TARGET_DIR:-$repo/target}/release
program=${0##*/}
made=
pids=()

die() { echo "$program: $*" >&2; exit 2; }

need() {
  local tool
  for tool; do command -v "$tool" >/dev/null || die "$tool is not installed"; done
}

# Makes a directory below $1, where everything of a run is; all is ended and removed with the script.
make_place() {
  made=$(mktemp -d "$1/supersync-$program.XXXXXX")
  trap finish EXIT
  trap 'exit 130' INT TERM
}

finish() {
  stop_all
  rm -rf "$made"
}

stop_all() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  # With a signal: how they end does not matter.
  wait 2>/dev/null || true
  pids=()
}

# Starts a daemon whose output is in $1; its pid is the last of pids.
spawn() {
  "${@:2}" >>"$1" 2>&1 &
  pids+=($!)
}

# Until somebody listens on each of these ports of loopback.
await_ports() {
  local port try
  for port; do
    for ((try = 0; ; try++)); do
      (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
      ((try < 200)) || die "nobody listens on port $port"
      sleep 0.05
    done
  done
}

# A directory that is there and empty.
fresh() { rm -rf "${made:?}/$1"; mkdir -p "$made/$1"; }

# $1 files of $2 bytes in the directory $3.
random_files() {
  local i
  mkdir -p "$3"
  for ((i = 1; i <= $1; i++)); do head -c "$2" /dev/urandom >"$3/$i"; done
}

machine() {
  local model
  model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
  echo "$(nproc) cores (${model:-unknown}), Linux $(uname -r)"
}
