# shellcheck shell=bash
# What each test of the lab begins with: where its tools and the daemon are, and whether it can run on this host at all.

lab_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$lab_dir/../.." && pwd)
export SUPERSYNC_LAB=${SUPERSYNC_LAB:-$top/../shared/lab}
export SUPERSYNCD=${SUPERSYNCD:-$top/target/release/supersyncd}

# skip WHY: ends the test, which has not failed.
skip() { echo "skipped: $*"; exit 0; }

need_root() { ((EUID == 0)) || skip "this test needs root"; }

# need_lab_tools TOOL...: of the test network.
need_lab_tools() {
  local tool
  for tool; do
    [[ -x $SUPERSYNC_LAB/$tool ]] || skip "this test needs the tool '$tool' in $SUPERSYNC_LAB (set SUPERSYNC_LAB)"
  done
}

# need_commands PACKAGES COMMAND...: on the PATH, where Debian's PACKAGES put them.
need_commands() {
  local packages=$1 command
  for command in "${@:2}"; do
    command -v "$command" >/dev/null || skip "this test needs '$command' (Debian: $packages)"
  done
}

need_systemd() { [[ -x /lib/systemd/systemd ]] || skip "this test needs systemd"; }

# Without the daemon the test fails: it is what is tested.
need_daemon() { [[ -x $SUPERSYNCD ]] || { echo "no $SUPERSYNCD: cargo build --release" >&2; exit 1; }; }
