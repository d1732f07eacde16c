# shellcheck shell=bash
# What happens to a site, a function each (tests/lab/run says what they are). Each uses site.sh, prints its line and
# leaves its figure; each has a process of its own.

# shellcheck source=tests/lab/site.sh
source "$(dirname "${BASH_SOURCE[0]}")/site.sh"

SCENARIO_LINK=t1-e1-1     # the one that something happens to

# scenario_need BLOCKS|TOOL...: ends the process, and says why, where something is not there.
scenario_need() {
  local need
  for need in "$@"; do
    if [[ $need == blocks ]]; then
      [[ $SUPERSYNC_LAB_BLOCKS == true ]] || scenario_skip "this is about blocks, and SUPERSYNC_LAB_BLOCKS is not true"
    else
      [[ -x $need ]] || command -v "$need" >/dev/null || scenario_skip "'$need' is needed"
    fi
  done
}

scenario_skip() {
  local name=${FUNCNAME[2]#scenario_}
  echo "${name//_/-}: skipped: $*"
  exit 0
}

# The site with all that its traders have, started; arguments are those of `net up`.
scenario_begin() {
  site_up "$@"
  site_data
  site_configs
  site_start "${SITE_HOSTS[@]}"
}

# scenario_end SCENARIO [IDEAL]: until all is done.
scenario_end() {
  local ideal=${2:-$(site_ideal "$(site_bytes_each_way)")} seconds
  site_wait_all "$ideal"
  seconds=$(site_seconds)
  site_report "$1" "$seconds" "$ideal"
}

scenario_plain() { scenario_begin; scenario_end plain; }

scenario_delay() { scenario_begin --delay 25; scenario_end delay; }

# scenario_half SCENARIO CMD...: does something for good when half is done, which calls site_share.
scenario_half() {
  local name=$1 half before
  shift
  half=$(($(site_bytes_each_way) / 2))
  scenario_begin
  before=$(site_ideal "$half")
  site_wait $(($(site_total) / 2)) "$((4 * ${before%.*} + 20))"
  "$@"
  scenario_end "$name" "$(awk -v a="$before" -v b="$(site_ideal "$half")" 'BEGIN { printf "%.2f", a + b }')"
}

scenario_cut() { scenario_half cut scenario_cut_link; }

scenario_cut_link() {
  site_net cut "$SCENARIO_LINK"
  site_share "$SCENARIO_LINK" 0
}

scenario_dead_exchange() { scenario_half dead-exchange scenario_kill_exchange; }

scenario_kill_exchange() {
  local link
  site_kill e2
  for ((link = 1; link <= SITE_LINKS; link++)); do site_share "t1-e2-$link" 0; done
}

scenario_slow() {
  site_up
  site_net rate "$SCENARIO_LINK" $((SITE_RATE / 10))
  site_share "$SCENARIO_LINK" 0.1
  site_data
  site_configs
  site_start "${SITE_HOSTS[@]}"
  scenario_end slow
}

scenario_flap() {
  local now seconds share
  site_up
  site_data
  site_configs
  site_flap "$SCENARIO_LINK"
  site_start "${SITE_HOSTS[@]}"
  site_share "$SCENARIO_LINK" 0.667
  site_wait_all "$(site_ideal "$(site_bytes_each_way)")"
  now=$EPOCHREALTIME
  seconds=$(site_seconds)
  site_unflap
  # A run is not a multiple of 3 s long: the ideal is that of the time that the link was up.
  share=$(site_up_share "$now")
  site_share "$SCENARIO_LINK" "$share"
  site_report flap "$seconds" "$(site_ideal "$(site_bytes_each_way)")" "the link was up for $share of the time"
}

# -- kill-all ------------------------------------------------------------------------------------------

scenario_kill_all() {
  local data host before seconds undisturbed relayed killed payload first second
  data=$(site_bytes_each_way)
  scenario_begin
  site_wait_all "$(site_ideal "$data")"
  payload=$(scenario_payload)
  site_stop
  site_compare
  site_hops >"$SITE_DIR/undisturbed"

  for host in "${SITE_HOSTS[@]}"; do
    rm -rf "${SITE_DIR:?}/$host/state" "${SITE_DIR:?}/$host/spool" "${SITE_DIR:?}/$host/remote"
    mkdir -p "$SITE_DIR/$host/state" "$SITE_DIR/$host/spool" "$SITE_DIR/$host/remote"
  done
  SITE_STARTED=
  site_start "${SITE_HOSTS[@]}"
  site_wait $(($(site_total) / 2)) 120
  before=$(scenario_payload)
  site_kill "${SITE_HOSTS[@]}"
  site_start "${SITE_HOSTS[@]}"
  site_wait_all "$(site_ideal "$data")"
  seconds=$(site_seconds)
  killed=$(scenario_payload)
  site_stop
  site_compare
  site_hops >"$SITE_DIR/both"

  read -r first second <<<"$(scenario_add "$before" "$killed")"
  read -r undisturbed relayed <<<"$payload"
  scenario_hops "$data"
  printf '  payload counted   undisturbed %s (traders), %s (exchanges), killed %s, %s x data\n' \
    "$(site_ratio "$undisturbed" $((2 * data)))" "$(site_ratio "$relayed" $((2 * data)))" \
    "$(site_ratio "$first" $((2 * data)))" "$(site_ratio "$second" $((2 * data)))"
  echo "kill-all: $seconds s; identical; $(<"$SITE_DIR/worst") x data over the busiest hop, less an undisturbed run's overhead"
  site_figure "$(<"$SITE_DIR/worst")" "x data over the busiest hop, less an undisturbed run's overhead"
}

# Payload that traders and exchanges have counted since they started.
scenario_payload() { echo "$(site_counter payload_received t1 t2) $(site_counter payload_received e1 e2)"; }

# Adds two pairs of numbers.
scenario_add() { echo "$1 $2" | awk '{ print $1 + $3, $2 + $4 }'; }

# Prints what crossed each hop in the run that was killed, beside the one that was not, and leaves the worst ratio in
# a file. A hop is all that goes from a trader to exchanges, or from exchanges to a trader: all data crosses it once.
scenario_hops() {
  awk -v data="$1" -v worst="$SITE_DIR/worst" '
    FNR == NR { first[$1] = $2; next }
    {
      split($1, end, "-")
      hop = end[1] ~ /^t/ ? end[1] " to exchanges" : "exchanges to " end[2]
      killed = $2 - first[$1]
      was[hop] += first[$1]; is[hop] += killed
      detail[hop] = detail[hop] sprintf("; %s %.3f and %.3f MB", $1, first[$1] / 1e6, killed / 1e6)
    }
    END {
      count = split("t1 to exchanges,exchanges to t2,t2 to exchanges,exchanges to t1", hops, ",")
      most = 0
      for (i = 1; i <= count; i++) {
        hop = hops[i]
        ratio = 1 + (is[hop] - was[hop]) / data
        if (ratio > most) most = ratio
        printf "  %-17s undisturbed %.3f, killed %.3f x data on the wire, %+d bytes%s\n", \
          hop, was[hop] / data, is[hop] / data, is[hop] - was[hop], detail[hop]
      }
      printf "%.3f\n", most >worst
    }' "$SITE_DIR/undisturbed" "$SITE_DIR/both"
}

# -- badwire -------------------------------------------------------------------------------------------

scenario_badwire() {
  local via=127.0.0.1:7501 ideal seconds address data host
  scenario_need blocks "$SUPERSYNC_LAB/badwire" python3 jq
  site_up
  site_data
  site_via "$SCENARIO_LINK" "$via"
  site_configs
  address=$(site_net addr "$SCENARIO_LINK" t1)
  site_helper badwire.log ready e1 \
    python3 "$SUPERSYNC_LAB/badwire" "$via" "$address:7401" --flip 2000000 --seconds 1800
  site_start "${SITE_HOSTS[@]}"
  data=$(site_bytes_each_way)
  ideal=$(site_ideal "$data")
  site_wait_all "$ideal"
  seconds=$(site_seconds)
  cat <<TEXT
  flips             towards t1 $(scenario_flips to), towards e1 $(scenario_flips back)
  the bad link      at t1 $(scenario_bad t1 "$(site_net addr "$SCENARIO_LINK" e1):"), at e1 $(scenario_bad e1 "$via")
  all links         $(for host in "${SITE_HOSTS[@]}"; do echo "$host $(scenario_bad "$host" "")"; done | paste -sd ,)
  sent again        payload counted beyond the data: traders $(($(site_counter payload_received t1 t2) - 2 * data)), exchanges \
$(($(site_counter payload_received e1 e2) - 2 * data)) bytes; thrown away by traders $(site_counter payload_discarded t1 t2) bytes
TEXT
  site_report badwire "$seconds" "$ideal"
}

# Flips that the proxy made one way.
scenario_flips() { grep -c "^flip .* dir=$1 " "$SITE_DIR/badwire.log" || true; }

# scenario_bad HOST ADDRESS: damage that a daemon has counted against the links whose other end's address begins so.
scenario_bad() {
  site_ctl "$1" links | jq -r --arg address "$2" '
    [.peers[].links[] | select(.address | startswith($address))]
    | if length == 0 then "no such link"
      elif any(has("bad")) then "\(map(.bad // 0) | add) bad"
      else "bad not counted" end + " (\(map(.reconnects) | add // 0) reconnects)"'
}

# -- fresh ---------------------------------------------------------------------------------------------

scenario_fresh() {
  local turn times=() many slowest median
  scenario_need blocks
  SITE_RATE=0 SITE_SPECIFIED=
  scenario_begin
  site_wait "$(site_total)" 60
  for ((turn = 1; turn <= 10; turn++)); do
    head -c "$(site_segment_bytes)" /dev/urandom >"$SITE_DIR/fresh"
    # At rest for a while.
    sleep 1
    times+=("$(scenario_drop "fresh_$turn" "$SITE_DIR/fresh")")
  done
  read -r median slowest <<<"$(printf '%s\n' "${times[@]}" | sort -n | awk '{ t[NR] = $1 } END { print (t[5] + t[6]) / 2, t[10] }')"
  mkdir "$SITE_DIR/many"
  head -c $((1000 * 24000)) /dev/urandom | split -b 24000 -a 3 -d - "$SITE_DIR/many/many_"
  sleep 1
  many=$(scenario_drop many_ "$SITE_DIR"/many/*)
  site_stop
  site_compare
  echo "fresh: one new segment of $(site_segment_bytes) bytes: median $median s, slowest $slowest s of 10 (${times[*]}); 1,000 of 24,000 bytes at once: $many s; identical"
  site_figure "$(awk -v a="$slowest" -v b="$many" 'BEGIN { printf "%.3f", (a > b / 10) ? a : b / 10 }')" \
    "s, the slowest new segment or a tenth of 1,000"
}

# scenario_drop NAME FILE...: moves files into the first trader's store, one as NAME or many whose names begin so; prints
# the seconds until the second one has marked them.
scenario_drop() {
  local name=$1 began deadline=$((SECONDS + 60))
  shift
  began=$EPOCHREALTIME
  if (($# == 1)); then mv "$1" "$SITE_DIR/t1/local/$name"; else mv "$@" "$SITE_DIR/t1/local/"; fi
  while (($(find "$SITE_DIR/t2/remote" -name "$name*.success" -printf x | wc -c) < $#)); do
    ((SECONDS < deadline)) || { site_fail "$name: not marked within 60 s"; return 1; }
    sleep 0.005
  done
  site_since "$began"
}

# -- small ---------------------------------------------------------------------------------------------

scenario_small() {
  local count=100000 seconds rsync_seconds
  scenario_need blocks rsync socat
  SITE_HOSTS=(t1 t2 e1) SITE_RATE=0 SITE_SPECIFIED=
  site_up --exchanges 1
  scenario_small_data "$count"
  site_configs
  # What was written goes to disk before the clock runs, and stays in memory.
  sync -f "$SITE_DIR"
  site_start "${SITE_HOSTS[@]}"
  # Counting that many markers takes its time of the processors, so it begins when all has come; the last one tells when
  # it was made.
  scenario_wait_payload t2 $((count * 4096)) 900
  site_wait "$count" 60 1
  seconds=$(find "$SITE_DIR/t2/remote" -name '*.success' -printf '%C@\n' | sort -n | tail -n 1 |
    awk -v start="$SITE_STARTED" '{ printf "%.2f", $1 - start }')
  site_stop
  site_compare
  sync -f "$SITE_DIR"
  scenario_rsync
  rsync_seconds=$(<"$SITE_DIR/rsync.seconds")
  echo "small: $count objects of 4096 bytes: $seconds s, $(scenario_each "$count" "$seconds") files/s;" \
    "rsync -a $rsync_seconds s, $(scenario_each "$count" "$rsync_seconds") files/s, its connection carried by socat on e1;" \
    "$(site_ratio "$seconds" "$rsync_seconds") x rsync's time; identical"
  site_figure "$(site_ratio "$seconds" "$rsync_seconds")" "x rsync's time"
}

# scenario_wait_payload HOST BYTES SECONDS: until so much has come.
scenario_wait_payload() {
  local deadline=$((SECONDS + $3))
  # The daemons have to open their control sockets first.
  while (($(site_counter payload_received "$1" 2>/dev/null) < $2)); do
    ((SECONDS < deadline)) || { site_fail "$(site_counter payload_received "$1") of $2 bytes after $(site_seconds) s"; return 1; }
    sleep 1
  done
}

scenario_each() { awk -v count="$1" -v seconds="$2" 'BEGIN { printf "%d", count / seconds }'; }

# Directories of a thousand files.
scenario_small_data() {
  local directory
  mkdir -p "$SITE_DIR"/t{1,2}/{local,remote}
  for ((directory = 0; directory < $1 / 1000; directory++)); do
    mkdir "$SITE_DIR/t1/local/$directory"
    head -c $((1000 * 4096)) /dev/urandom | split -b 4096 -a 3 -d - "$SITE_DIR/t1/local/$directory/"
  done
}

# The same tree by rsync's daemon. No host reaches beyond its neighbours, so somebody on the exchange has to carry it
# here as well.
scenario_rsync() {
  local began via
  cat >"$SITE_DIR/rsyncd.conf" <<CONF
use chroot = no
uid = 0
gid = 0
reverse lookup = no
[local]
path = $SITE_DIR/t1/local
CONF
  site_helper rsyncd.log "listening on" t1 \
    rsync --daemon --no-detach --log-file=/dev/stdout --port=7801 --config="$SITE_DIR/rsyncd.conf"
  site_helper socat.log "listening on" e1 \
    socat -d -d -b 262144 TCP-LISTEN:7802,fork,reuseaddr "TCP:$(site_net addr t1-e1-1 t1):7801"
  via=$(site_net addr t2-e1-1 e1)
  mkdir "$SITE_DIR/rsynced"
  began=$EPOCHREALTIME
  "$SITE_NET" -n "$SITE_LAB" exec t2 rsync -a "rsync://$via:7802/local/" "$SITE_DIR/rsynced/"
  site_since "$began" >"$SITE_DIR/rsync.seconds"
  diff -rq "$SITE_DIR/t1/local" "$SITE_DIR/rsynced" >&2
}
