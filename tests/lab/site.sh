# shellcheck shell=bash
# A whole site in the test network: two traders, exchanges, three links a pair, real daemons.
#
# Owns a temporary directory, a network of its own name, the daemons and the helpers that it started; all of it is gone
# when the script that sources this ends, however it ends. Looks at nothing but the files on disk to see whether
# the site is done. Call site_up, site_data, site_configs, site_start, then site_wait and site_report.

SITE_NET=${SUPERSYNC_LAB:?the directory of the test network}/net
SITE_DAEMON=${SUPERSYNCD:?the daemon to test}
SITE_LAB=ssci$$
SITE_HOSTS=(t1 t2 e1 e2)
SITE_LINKS=3
SITE_RATE=1500000     # bytes/s of a link, each way; 0: unshaped
SITE_PACKET=1400
SITE_STOCKS=3         # segments are stock{1..SITE_STOCKS}_{1..SITE_PARTS}
SITE_PARTS=8
SITE_RECORDS=100000
SITE_RECORD_BYTES=24
SITE_SPECIFIED=yes    # whether the traders' configs say which segments there are
SITE_DIR=             # the temporary directory, once there is one
SITE_STARTED=         # when the first daemon was started, seconds
declare -A SITE_PID=()    # daemons, by host
SITE_HELPERS=()           # further processes to end with the site
declare -A SITE_SHARE=()  # by link, as site_share left it
declare -A SITE_VIA=()    # by link, as site_via left it

site_net() { timeout 120 "$SITE_NET" -n "$SITE_LAB" "$@"; }

site_fail() { echo "failed: $*" >&2; site_tails; return 1; }

# The last words of each daemon, for whoever has to find out why.
site_tails() {
  local host
  for host in "${SITE_HOSTS[@]}"; do
    [[ -s $SITE_DIR/$host.log ]] || continue
    echo "--- $host" >&2
    tail -n 15 "$SITE_DIR/$host.log" >&2
  done
}

# Builds the network; arguments are those of `net up`.
site_up() {
  SITE_DIR=$(mktemp -d -t ss-lab-XXXXXXXX)
  trap site_down EXIT
  trap 'exit 130' INT TERM
  site_net up --links "$SITE_LINKS" --rate "$SITE_RATE" "$@"
}

site_down() {
  local pid
  site_unflap
  for pid in "${SITE_PID[@]}" "${SITE_HELPERS[@]}"; do
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  site_net down || true
  if [[ ${SUPERSYNC_LAB_KEEP:-} ]]; then echo "kept: $SITE_DIR" >&2; else rm -rf "$SITE_DIR"; fi
}

# -- stores and configs --------------------------------------------------------------------------------

site_segments() {
  local stock part
  for ((stock = 1; stock <= SITE_STOCKS; stock++)); do
    for ((part = 1; part <= SITE_PARTS; part++)); do echo "stock${stock}_$part"; done
  done
}

site_segment_bytes() { echo $((SITE_RECORDS * SITE_RECORD_BYTES)); }
site_bytes_each_way() { echo $((SITE_STOCKS * SITE_PARTS * SITE_RECORDS * SITE_RECORD_BYTES)); }
site_total() { echo $((2 * SITE_STOCKS * SITE_PARTS)); }

# Gives each trader segments of its own.
site_data() {
  local host segment
  for host in t1 t2; do
    mkdir -p "$SITE_DIR/$host/local" "$SITE_DIR/$host/remote"
    for segment in $(site_segments); do
      head -c "$(site_segment_bytes)" /dev/urandom >"$SITE_DIR/$host/local/$segment"
    done
  done
}

site_configs() {
  local host
  for host in "${SITE_HOSTS[@]}"; do
    mkdir -p "$SITE_DIR/$host/state"
    if [[ $host == t* ]]; then site_trader "$host"; else site_exchange "$host"; fi >"$SITE_DIR/$host.toml"
  done
}

site_trader() {
  cat <<TOML
role = "trader"
name = "trader${1#t}"
packet_bytes = $SITE_PACKET
blocks = $SUPERSYNC_LAB_BLOCKS
state_dir = "$SITE_DIR/$1/state"

[control]
socket = "$SITE_DIR/$1/control.sock"

[store]
local  = "$SITE_DIR/$1/local"
remote = "$SITE_DIR/$1/remote"
TOML
  if [[ $SITE_SPECIFIED ]]; then
    printf 'segments = { pattern = "stock{1..%d}_{1..%d}", records = %d, record_bytes = %d }\n' \
      "$SITE_STOCKS" "$SITE_PARTS" "$SITE_RECORDS" "$SITE_RECORD_BYTES"
  fi
  cat <<TOML

[[listen]]
address = "0.0.0.0:7401"
protocol = "duplex"
allow = ["10.${1#t}.0.0/16"]
TOML
}

site_exchange() {
  local trader link links
  cat <<TOML
role = "exchange"
name = "exchange${1#e}"
packet_bytes = $SITE_PACKET
blocks = $SUPERSYNC_LAB_BLOCKS
state_dir = "$SITE_DIR/$1/state"

[control]
socket = "$SITE_DIR/$1/control.sock"

[spool]
path = "$SITE_DIR/$1/spool"
max_bytes = "1GiB"
TOML
  mkdir -p "$SITE_DIR/$1/spool"
  for trader in t1 t2; do
    links=
    for ((link = 1; link <= SITE_LINKS; link++)); do
      links+="${links:+, }\"$(site_dialed "$trader-$1-$link")\""
    done
    printf '\n[[peer]]\nname = "trader%s"\nlinks = [%s]\n' "${trader#t}" "$links"
  done
}

# site_via LINK ADDRESS: its exchange dials there, not the trader itself.
site_via() { SITE_VIA["$1"]=$2; }

# Where an exchange dials for a link.
site_dialed() {
  if [[ ${SITE_VIA[$1]:-} ]]; then echo "${SITE_VIA[$1]}"; else echo "$(site_net addr "$1" "${1%%-*}"):7401"; fi
}

# -- daemons and helpers -------------------------------------------------------------------------------

# Starts the daemons of the given hosts.
site_start() {
  local host
  [[ $SITE_STARTED ]] || SITE_STARTED=$EPOCHREALTIME
  for host in "$@"; do
    "$SITE_NET" -n "$SITE_LAB" exec "$host" "$SITE_DAEMON" run "$SITE_DIR/$host.toml" >>"$SITE_DIR/$host.log" 2>&1 &
    SITE_PID[$host]=$!
  done
}

# Kills the daemons of the given hosts at once.
site_kill() {
  local host pids=()
  for host in "$@"; do pids+=("${SITE_PID[$host]}"); done
  kill -9 "${pids[@]}"
  for host in "$@"; do
    wait "${SITE_PID[$host]}" 2>/dev/null || true
    unset "SITE_PID[$host]"
  done
}

# Ends the daemons as an operator would; each must end by itself, and well.
site_stop() {
  local host status
  for host in "${!SITE_PID[@]}"; do kill -TERM "${SITE_PID[$host]}" 2>/dev/null || true; done
  for host in "${!SITE_PID[@]}"; do
    timeout 20 tail --pid="${SITE_PID[$host]}" -f /dev/null || { site_fail "$host does not stop"; return 1; }
    status=0; wait "${SITE_PID[$host]}" || status=$?
    unset "SITE_PID[$host]"
    ((status == 0)) || { site_fail "$host ended with exit status $status"; return 1; }
  done
}

# site_helper LOG WORD HOST CMD...: starts a process on a host; returns when it has written WORD to its log.
site_helper() {
  local log=$SITE_DIR/$1 word=$2 deadline=$((SECONDS + 10))
  shift 2
  "$SITE_NET" -n "$SITE_LAB" exec "$@" >"$log" 2>&1 &
  SITE_HELPERS+=("$!")
  # Or the shell tells of its end.
  disown "$!"
  until grep -q "$word" "$log"; do
    ((SECONDS < deadline)) || { cat "$log" >&2; site_fail "${*:2:2} does not start"; return 1; }
    sleep 0.02
  done
}

# What a daemon says of itself, as JSON.
site_ctl() { timeout 10 "${SITE_DAEMON%d}ctl" --socket "$SITE_DIR/$1/control.sock" --json "${@:2}"; }

# site_counter KEY HOST...: one number of the daemons' status, added up.
site_counter() {
  local host
  for host in "${@:2}"; do site_ctl "$host" status || true; done | grep -o "\"$1\": *[0-9]*" | grep -o '[0-9]*$' |
    awk '{ sum += $1 } END { printf "%d\n", sum }'
}

# -- time and capacity ---------------------------------------------------------------------------------

site_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.3f", to - from }'; }
site_seconds() { site_since "$SITE_STARTED"; }

# site_share LINK SHARE: so much of its rate is left.
site_share() { SITE_SHARE["$1"]=$2; }

# Links' worth that one direction can carry: what comes from a trader over one exchange is limited by the links up to
# it and by the links down from it, and the exchanges add up. (The largest flow from trader to trader is
#     sum over exchanges e of min(sum of links t1-e, sum of links e-t2),
# as no bytes pass from one exchange to another.) It is the same in both directions, as a link's two ways are equal.
site_capacity() {
  local exchange trader link
  for exchange in "${SITE_HOSTS[@]:2}"; do
    for trader in t1 t2; do
      for ((link = 1; link <= SITE_LINKS; link++)); do
        echo "$exchange $trader ${SITE_SHARE[$trader-$exchange-$link]:-1}"
      done
    done
  done | awk '
    { sum[$1, $2] += $3; exchanges[$1] }
    END {
      for (e in exchanges) total += sum[e, "t1"] < sum[e, "t2"] ? sum[e, "t1"] : sum[e, "t2"]
      print total
    }'
}

# Seconds that BYTES (each way) take at the present capacity when nothing is lost.
# 0.934 is what TCP leaves of Ethernet's raw rate when both directions are full; a packet's header is 2 bytes.
site_ideal() {
  awk -v bytes="$1" -v links="$(site_capacity)" -v rate="$SITE_RATE" -v n="$SITE_PACKET" \
    'BEGIN { printf "%.2f", bytes / (links * rate * 0.934 * (n - 2) / n) }'
}

SITE_FLAPPING=        # the process that does it

# Takes a link down for 1 s in every 3, until site_unflap.
site_flap() {
  (
    # With this, the shell ends between two commands and leaves none behind.
    trap 'exit 0' TERM
    while :; do
      sleep 2
      site_net cut "$1" down
      echo "down $EPOCHREALTIME" >>"$SITE_DIR/flaps"
      sleep 1
      site_net heal "$1"
      echo "up $EPOCHREALTIME" >>"$SITE_DIR/flaps"
    done
  ) &
  SITE_FLAPPING=$!
}

site_unflap() {
  [[ $SITE_FLAPPING ]] || return 0
  kill -TERM "$SITE_FLAPPING" 2>/dev/null || true
  wait "$SITE_FLAPPING" 2>/dev/null || true
  SITE_FLAPPING=
}

# Part of the time from the start until END, seconds, in which the flapping link was up.
site_up_share() {
  awk -v start="$SITE_STARTED" -v end="$1" '
    $1 == "down" && $2 < end { since = $2 }
    $1 == "up" && since { down += ($2 < end ? $2 : end) - since; since = 0 }
    END {
      if (since) down += end - since
      printf "%.3f", 1 - down / (end - start)
    }' "$SITE_DIR/flaps"
}

# -- waiting and checking ------------------------------------------------------------------------------

# Markers there are, at both traders together.
site_done() { find "$SITE_DIR/t1/remote" "$SITE_DIR/t2/remote" -name '*.success' -printf x | wc -c; }

# Returns when COUNT objects (of both traders together) are marked; fails after SECONDS, or when a daemon has ended.
# Looks again after PAUSE seconds.
site_wait() {
  local count=$1 deadline=$((SECONDS + $2)) pause=${3:-0.02} host
  while (($(site_done) < count)); do
    ((SECONDS < deadline)) || { site_fail "$(site_done) of $count objects after $(site_seconds) s"; return 1; }
    for host in "${!SITE_PID[@]}"; do
      [[ -e /proc/${SITE_PID[$host]}/exe ]] || { site_fail "the daemon on $host has ended"; return 1; }
    done
    sleep "$pause"
  done
}

# Waits for all segments, as long as anybody could want to when IDEAL seconds would do.
site_wait_all() { site_wait "$(site_total)" "$(awk -v ideal="$1" 'BEGIN { print int(4 * ideal) + 20 }')"; }

# Both traders must have what the other had, byte for byte and marked, and nothing else.
site_compare() {
  local from to
  for from in t1 t2; do
    to=t$((3 - ${from#t}))
    diff -rq --exclude='*.success' --exclude=.supersync "$SITE_DIR/$from/local" "$SITE_DIR/$to/remote" >&2 ||
      { site_fail "$to does not have what $from had"; return 1; }
    diff <(site_names "$from/local") <(site_names "$to/remote" -name '*.success' | sed 's/\.success$//') >&2 ||
      { site_fail "$to has not marked what $from had"; return 1; }
  done
}

# site_names DIRECTORY [TEST...]: its files, sorted.
site_names() { (cd "$SITE_DIR/$1" && find . -path ./.supersync -prune -o -type f "${@:2}" -print | LC_ALL=C sort); }

# Most memory of a node that is not a mapped file, MiB.
site_resident() {
  local pid
  for pid in "${SITE_PID[@]}"; do awk '/^RssAnon:/ { print int($2 / 1024) }' "/proc/$pid/status"; done | sort -n | tail -n 1
}

# Bytes that crossed each hop so far, Ethernet's and TCP's headers included: lines of FROM-TO BYTES.
site_hops() {
  site_net list | awk '/^t[12]-/ {
    split($1, link, "-")
    sent[link[1] "-" link[2]] += $(NF - 1)
    sent[link[2] "-" link[1]] += $NF
  } END { for (hop in sent) print hop, sent[hop] }' | sort
}

# What crossed the wire to the traders, in units of what they wanted.
site_wire() {
  site_hops | awk -v wanted=$((2 * $(site_bytes_each_way))) '/^e/ { sent += $2 } END { printf "%.2f", sent / wanted }'
}

# -- telling -------------------------------------------------------------------------------------------

# site_ratio A B: A / B.
site_ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'; }

# site_figure VALUE UNIT: what the scenario is judged by.
site_figure() { echo "$*" >>"$SUPERSYNC_LAB_FIGURE"; }

# site_report SCENARIO SECONDS IDEAL [MORE]: ends the site, checks it and prints the scenario's line.
site_report() {
  local scenario=$1 seconds=$2 ideal=$3 more=${4:-} ratio resident wire
  resident=$(site_resident)
  wire=$(site_wire)
  site_stop
  site_compare
  ratio=$(site_ratio "$seconds" "$ideal")
  echo "$scenario: $seconds s, $ratio x ideal ($ideal s); identical; wire $wire x data; at most $resident MiB resident${more:+; $more}"
  site_figure "$ratio" "x ideal"
}
