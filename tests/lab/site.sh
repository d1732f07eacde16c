# shellcheck shell=bash
# A whole site in the test network: two traders, two exchanges, three links a pair, real daemons.
#
# Owns a temporary directory, a network of its own name and the daemons that it started; all of it is gone
# when the script that sources this ends, however it ends. Looks at nothing but the files on disk to see whether
# the site is done. Call site_up, site_data, site_configs, site_start, then site_wait and site_report.

SITE_NET=${SUPERSYNC_LAB:?the directory of the test network}/net
SITE_DAEMON=${SUPERSYNCD:?the daemon to test}
SITE_LAB=ssci$$
SITE_HOSTS=(t1 t2 e1 e2)
SITE_LINKS=3
SITE_RATE=1500000     # bytes/s of a link, each way
SITE_PACKET=1400
SITE_STOCKS=3         # segments are stock{1..3}_{1..8}
SITE_PARTS=${SITE_PARTS:-8}
SITE_RECORDS=100000
SITE_RECORD_BYTES=24
SITE_DIR=             # the temporary directory, once there is one
SITE_CARRIED=         # what links had carried when all daemons were killed, if they were
SITE_STARTED=         # when the first daemon was started, seconds
declare -A SITE_PID=()

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
  for pid in "${SITE_PID[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  site_net down || true
  if [[ ${SUPERSYNC_LAB_KEEP:-} ]]; then echo "kept: $SITE_DIR" >&2; else rm -rf "$SITE_DIR"; fi
}

site_segments() {
  local stock part
  for ((stock = 1; stock <= SITE_STOCKS; stock++)); do
    for ((part = 1; part <= SITE_PARTS; part++)); do echo "stock${stock}_$part"; done
  done
}

site_segment_bytes() { echo $((SITE_RECORDS * SITE_RECORD_BYTES)); }
site_bytes_each_way() { echo $((SITE_STOCKS * SITE_PARTS * SITE_RECORDS * SITE_RECORD_BYTES)); }

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
blocks = ${SUPERSYNC_LAB_BLOCKS:-false}
state_dir = "$SITE_DIR/$1/state"

[control]
socket = "$SITE_DIR/$1/control.sock"

[store]
local  = "$SITE_DIR/$1/local"
remote = "$SITE_DIR/$1/remote"
segments = { pattern = "stock{1..$SITE_STOCKS}_{1..$SITE_PARTS}", records = $SITE_RECORDS, record_bytes = $SITE_RECORD_BYTES }

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
blocks = ${SUPERSYNC_LAB_BLOCKS:-false}
state_dir = "$SITE_DIR/$1/state"

[control]
socket = "$SITE_DIR/$1/control.sock"

[spool]
path = "$SITE_DIR/$1/spool"
max_bytes = "1GiB"
TOML
  mkdir -p "$SITE_DIR/$1/spool"
  for trader in 1 2; do
    links=
    for ((link = 1; link <= SITE_LINKS; link++)); do
      links+="${links:+, }\"$(site_net addr "t$trader-$1-$link" "t$trader"):7401\""
    done
    printf '\n[[peer]]\nname = "trader%s"\nlinks = [%s]\n' "$trader" "$links"
  done
}

# Starts the daemons of the given hosts.
site_start() {
  local host
  [[ $SITE_STARTED ]] || SITE_STARTED=$EPOCHREALTIME
  for host in "$@"; do
    "$SITE_NET" -n "$SITE_LAB" exec "$host" "$SITE_DAEMON" run "$SITE_DIR/$host.toml" >>"$SITE_DIR/$host.log" 2>&1 &
    SITE_PID[$host]=$!
  done
}

# Kills the daemon of a host at once, for good.
site_kill() {
  kill -9 "${SITE_PID[$1]}"
  wait "${SITE_PID[$1]}" 2>/dev/null || true
  unset "SITE_PID[$1]"
}

site_seconds() { awk -v from="$SITE_STARTED" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.2f", to - from }'; }

# Markers there are, at both traders together.
site_done() { find "$SITE_DIR/t1/remote" "$SITE_DIR/t2/remote" -name '*.success' -printf x | wc -c; }

# Returns when COUNT segments (of both traders together) are marked; fails after SECONDS, or when a daemon has ended.
site_wait() {
  local count=$1 deadline=$((SECONDS + $2)) host
  while (($(site_done) < count)); do
    ((SECONDS < deadline)) || { site_fail "$(site_done) of $count segments after $(site_seconds) s"; return 1; }
    for host in "${!SITE_PID[@]}"; do
      [[ -e /proc/${SITE_PID[$host]}/exe ]] || { site_fail "the daemon on $host has ended"; return 1; }
    done
    sleep 0.02
  done
}

site_total() { echo $((2 * SITE_STOCKS * SITE_PARTS)); }

# Both traders must have what the other had, byte for byte, and nothing else.
site_compare() {
  local from to segment
  for from in t1 t2; do
    to=t$((3 - ${from#t}))
    for segment in $(site_segments); do
      [[ -e $SITE_DIR/$to/remote/$segment.success ]] || { site_fail "$to has no $segment.success"; return 1; }
      cmp "$SITE_DIR/$from/local/$segment" "$SITE_DIR/$to/remote/$segment" || { site_fail "$segment differs at $to"; return 1; }
    done
  done
}

# Most memory of a node that is not a mapped file, MiB.
site_resident() {
  local pid
  for pid in "${SITE_PID[@]}"; do awk '/^RssAnon:/ { print int($2 / 1024) }' "/proc/$pid/status"; done | sort -n | tail -n 1
}

# What crossed the wire to the traders, in units of what they wanted.
site_wire() {
  site_net list | awk -v wanted=$((2 * $(site_bytes_each_way))) '/^t[12]-/ { sent += $8 } END { printf "%.2f", sent / wanted }'
}

# Bytes that all links together have carried: what traders sent, what exchanges sent.
site_carried() { site_net list | awk '/^t[12]-/ { t += $7; e += $8 } END { print t, e }'; }

# Payload that the running daemons of the given hosts have sent.
site_payload() {
  local host
  for host in "$@"; do
    "${SITE_DAEMON%d}ctl" --socket "$SITE_DIR/$host/control.sock" --json status || true # says 3 while it is not done
  done | sed -n 's/.*"payload_sent":\([0-9]*\).*/\1/p' | awk '{ sent += $1 } END { printf "%d", sent }'
}

# Kills all daemons at once and starts them again; what links had carried by then is kept for site_hops.
site_restart_all() {
  local host
  for host in "${SITE_HOSTS[@]}"; do kill -9 "${SITE_PID[$host]}"; done
  for host in "${SITE_HOSTS[@]}"; do wait "${SITE_PID[$host]}" 2>/dev/null || true; done
  SITE_PID=()
  SITE_CARRIED=$(site_carried)
  site_start "${SITE_HOSTS[@]}"
}

# What was sent over each hop, before all daemons were killed and after, in units of the data. Of what the killed ones sent
# only the links know; how much of that was payload is reckoned from what the second ones say they sent.
site_hops() {
  awk -v before="$SITE_CARRIED" -v all="$(site_carried)" -v traders="$(site_payload t1 t2)" \
    -v exchanges="$(site_payload e1 e2)" -v data=$((2 * $(site_bytes_each_way))) 'BEGIN {
      split(before, b); split(all, a)
      printf "%.4f %.4f", a[1] * traders / (a[1] - b[1]) / data, a[2] * exchanges / (a[2] - b[2]) / data
    }'
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

# Seconds that BYTES (each way) take over LINKS links when nothing is lost.
# 0.934 is what TCP leaves of Ethernet's raw rate when both directions are full; a packet's header is 2 bytes.
site_ideal() {
  awk -v bytes="$1" -v links="$2" -v rate="$SITE_RATE" -v n="$SITE_PACKET" \
    'BEGIN { printf "%.2f", bytes / (links * rate * 0.934 * (n - 2) / n) }'
}

# site_report SCENARIO IDEAL BOUND: waits for the end, checks it and prints the scenario's line.
site_report() {
  local scenario=$1 ideal=$2 bound=$3 seconds ratio resident wire hops=
  site_wait "$(site_total)" "$(awk -v ideal="$ideal" 'BEGIN { print int(4 * ideal) + 20 }')"
  seconds=$(site_seconds)
  resident=$(site_resident)
  wire=$(site_wire)
  [[ -z $SITE_CARRIED ]] || hops=$(site_hops)
  site_stop
  site_compare
  ratio=$(awk -v a="$seconds" -v b="$ideal" 'BEGIN { printf "%.2f", a / b }')
  echo "$scenario: $seconds s, $ratio x ideal ($ideal s); identical; wire $wire x data; at most $resident MiB resident"
  if [[ $hops ]]; then
    echo "$scenario: sent in both runs by traders ${hops% *} x data, by exchanges ${hops#* } x data"
    if awk -v hops="$hops" 'BEGIN { split(hops, h); exit !(h[1] > 1.02 || h[2] > 1.02) }'; then
      site_fail "more than 1.02 x the data was sent over a hop"
    fi
  fi
  if [[ $bound ]] && awk -v a="$ratio" -v b="$bound" 'BEGIN { exit !(a > b) }'; then
    site_fail "$scenario took more than $bound x ideal"
  fi
}
