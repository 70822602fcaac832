# What `up`, `down` and `status` share: options, the state folder, processes. Sourced by them.
# A server's own part is in FOLDER/server.sh: <kind>_prepare (install, download, build),
# <kind>_start NAME, <kind>_ready NAME, <kind>_after NAME (once it is ready), <kind>_addresses.
# shellcheck shell=bash
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TOKENMETER_LOCAL_CACHE:-$here/.cache}
state=${TOKENMETER_LOCAL_STATE:-$here/.state}
port_base=17000
brokers=1
redis_persistence=aof
kafka_jit=quick
replica=no
tls=no
purge=no
signal=TERM
ready_seconds_max=60
stop_seconds_max=10
names=()

for server in postgres redis clickhouse kafka; do
  # shellcheck source=/dev/null
  . "$here/$server/server.sh"
done
# shellcheck source=/dev/null
. "$here/tls.sh"

usage() {
  cat <<'USAGE'
usage: deploy/local/up [OPTIONS] [SERVER…]
       deploy/local/down [--state DIR] [--kill] [--purge] [SERVER…]
       deploy/local/status [--state DIR] [SERVER…]
SERVER: postgres, redis, redis-replica, clickhouse, kafka (all brokers), kafka-1 … kafka-3; default: all
  --state DIR                  everything the servers keep (or TOKENMETER_LOCAL_STATE; default deploy/local/.state)
  --port-base N                postgres N+1, redis N+2, redis-replica N+3, clickhouse N+4, kafka N+11…
                               (or TOKENMETER_LOCAL_PORT_BASE; default 17000)
  --brokers 1|3                Kafka brokers (default 1)
  --redis-persistence aof|none append-only file with appendfsync everysec (default), or nothing
  --kafka-jit quick|full       Java's first compiler alone (default), or the optimising one too: better after a minute
  --replica                    a second Redis, replicating the first
  --tls                        TLS alone, with certificates of its own, and passwords
  --kill                       down: kill -9 at once
  --purge                      down: remove the data too
Options of `up` are remembered in the state folder.
USAGE
}

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# ---- options and what the state folder remembers -------------------------------------------------

parse_options() {
  local given=() option value
  while [ $# -gt 0 ]; do
    option=$1
    # shellcheck disable=SC2034 # `purge` is read by `down`
    case $option in
    --state | --port-base | --brokers | --redis-persistence | --kafka-jit)
      [ $# -ge 2 ] || die "$option needs a value"
      value=$2
      shift
      ;;&
    --state) state=$value ;;
    --port-base) given+=("port_base=$value") ;;
    --brokers) given+=("brokers=$value") ;;
    --redis-persistence) given+=("redis_persistence=$value") ;;
    --kafka-jit) given+=("kafka_jit=$value") ;;
    --replica) given+=("replica=yes") ;;
    --tls) given+=("tls=yes") ;;
    --kill) signal=KILL ;;
    --purge) purge=yes ;;
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) names+=("$option") ;;
    esac
    shift
  done
  state=$(realpath -m "$state")
  if [ -n "${TOKENMETER_LOCAL_PORT_BASE:-}" ]; then
    port_base=$TOKENMETER_LOCAL_PORT_BASE
  fi
  # shellcheck source=/dev/null
  [ ! -f "$state/settings" ] || . "$state/settings"
  local setting
  for setting in ${given[@]+"${given[@]}"}; do
    adopt "${setting%%=*}" "${setting#*=}"
  done
  check_settings
  expand_names
}

# A server that runs, or a log that was laid out otherwise, cannot follow a new setting.
adopt() {
  local name=$1 value=$2
  [ "${!name}" != "$value" ] || return 0
  case $name in
  port_base)
    local running
    for running in $(all_names); do
      ! alive "$running" || die "$running runs with --port-base $port_base: \`down\` first"
    done
    [ ! -e "$state/kafka-1" ] || die "Kafka's state was made with --port-base $port_base: \`down --purge\` first"
    ;;
  brokers) [ ! -e "$state/kafka-1" ] || die "the state was made with --brokers $brokers: \`down --purge\` first" ;;
  kafka_jit)
    local broker
    for broker in $(broker_names); do
      ! alive "$broker" || die "$broker runs with --kafka-jit $kafka_jit: \`down kafka\` first"
    done
    ;;
  tls) [ ! -e "$state/settings" ] || die "the state was made without --tls: \`down --purge\` first" ;;
  redis_persistence) ! alive redis || die "redis runs with --redis-persistence $redis_persistence: \`down redis\` first" ;;
  esac
  printf -v "$name" %s "$value"
}

check_settings() {
  if ! [[ $port_base =~ ^[0-9]+$ ]] || [ "$port_base" -lt 1024 ] || [ "$port_base" -gt 65500 ]; then
    die "--port-base $port_base: a number from 1024 to 65500"
  fi
  [[ $brokers =~ ^[13]$ ]] || die "--brokers $brokers: 1 or 3"
  [[ $redis_persistence =~ ^(aof|none)$ ]] || die "--redis-persistence $redis_persistence: aof or none"
  [[ $kafka_jit =~ ^(quick|full)$ ]] || die "--kafka-jit $kafka_jit: quick or full"
}

all_names() {
  echo postgres redis
  [ "$replica" = no ] || echo redis-replica
  echo clickhouse
  broker_names
}

broker_names() {
  local broker
  for ((broker = 1; broker <= brokers; broker++)); do echo "kafka-$broker"; done
}

expand_names() {
  local name known expanded=()
  [ ${#names[@]} -gt 0 ] || read -ra names <<<"$(all_names | tr '\n' ' ')"
  known=" $(all_names | tr '\n' ' ') "
  for name in "${names[@]}"; do
    if [ "$name" = kafka ]; then
      read -ra expanded <<<"${expanded[*]-} $(broker_names | tr '\n' ' ')"
    elif [[ $known == *" $name "* ]]; then
      expanded+=("$name")
    else
      die "$name: not one of:$known"
    fi
  done
  names=("${expanded[@]}")
}

remember_settings() {
  printf '%s=%s\n' port_base "$port_base" brokers "$brokers" \
    redis_persistence "$redis_persistence" kafka_jit "$kafka_jit" replica "$replica" tls "$tls" >"$state/settings"
}

# For a shell (`set -a; . FILE; set +a`) and for programs that read lines of NAME=value.
write_env() {
  {
    echo "TOKENMETER_KAFKA_BROKERS=$(broker_names | while read -r name; do
      printf '127.0.0.1:%s,' "$(port_of "$name")"
    done | sed 's/,$//')"
    if [ "$tls" = yes ]; then
      echo "TOKENMETER_KAFKA_OPTION=$(kafka_client_options)"
      echo "TOKENMETER_REDIS_URL=rediss://:$local_password@127.0.0.1:$(port_of redis)/"
      echo "TOKENMETER_CLICKHOUSE_URL=https://127.0.0.1:$(port_of clickhouse)"
      echo "TOKENMETER_POSTGRES_URL=postgres://tokenmeter:$local_password@127.0.0.1:$(port_of postgres)/tokenmeter?sslmode=verify-full"
      # Whom clients believe.
      echo "SSL_CERT_FILE=$(printf %q "$(tls_file ca.crt)")"
    else
      echo "TOKENMETER_REDIS_URL=redis://127.0.0.1:$(port_of redis)/"
      echo "TOKENMETER_CLICKHOUSE_URL=http://127.0.0.1:$(port_of clickhouse)"
      echo "TOKENMETER_POSTGRES_URL=postgres://tokenmeter@127.0.0.1:$(port_of postgres)/tokenmeter"
    fi
    [ "$replica" = no ] || echo "LOCAL_REDIS_REPLICA_URL=redis://127.0.0.1:$(port_of redis-replica)/"
    echo "LOCAL_STATE=$(printf %q "$state")"
  } >"$state/env.new"
  mv "$state/env.new" "$state/env"
}

port_of() {
  case $1 in
  postgres) echo $((port_base + 1)) ;;
  redis) echo $((port_base + 2)) ;;
  redis-replica) echo $((port_base + 3)) ;;
  clickhouse) echo $((port_base + 4)) ;;
  kafka-*) echo $((port_base + 10 + ${1#kafka-})) ;;
  esac
}

kind_of() {
  case $1 in
  redis-replica) echo redis ;;
  kafka-*) echo kafka ;;
  *) echo "$1" ;;
  esac
}

# One `up` or `down` at a time for each state folder. The servers do not inherit the lock.
lock_state() {
  exec 9>"$state/lock"
  flock 9
}

# ---- processes -----------------------------------------------------------------------------------

pid_of() { cat "$state/$1.pid" 2>/dev/null || true; }

# Ours, and not a stranger that got the number of one that died: its command names our folder.
# A dead child that nobody waited for has an empty command.
alive() {
  local pid
  pid=$(pid_of "$1")
  [ -n "$pid" ] && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$state/$1"
}

# Gone, or a dead child that nobody waited for. Unlike `! alive`, not true of a child of ours that is about
# to become the server: while it does, its command is empty.
ended() {
  local process_state
  process_state=$(sed -n 's/^State:[[:space:]]*//p' "/proc/$(pid_of "$1")/status" 2>/dev/null) || true
  [[ -z $process_state || $process_state == [ZX]* ]]
}

# Starts a server's own program: no shell stays between, so that the pid file names the server.
spawn() {
  local name=$1 log=$state/log/$1.log
  shift
  [ ! -s "$log" ] || mv "$log" "$log.previous"
  (
    cd /
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
    exec 9>&- setsid "$@"
  ) </dev/null >>"$log" 2>&1 &
  echo $! >"$state/$name.pid"
}

await_ready() {
  local name=$1 kind deadline=$((SECONDS + ready_seconds_max))
  kind=$(kind_of "$name")
  until alive "$name" && "${kind}_ready" "$name"; do
    if ended "$name" && ! "${kind}_retry" "$name"; then
      show_log "$name" "ended while starting"
    fi
    [ "$SECONDS" -lt "$deadline" ] || show_log "$name" "is not ready after $ready_seconds_max s"
    sleep 0.1
  done
  "${kind}_after" "$name"
}

show_log() {
  echo "---- $state/log/$1.log" >&2
  tail -n 60 "$state/log/$1.log" >&2 || true
  die "$1 $2; its log is above"
}

stop() {
  local name pid deadline
  for name in "$@"; do
    ! alive "$name" || kill -s "$(stop_signal "$name")" "$(pid_of "$name")" 2>/dev/null || true
  done
  deadline=$((SECONDS + stop_seconds_max))
  for name in "$@"; do
    pid=$(pid_of "$name")
    while alive "$name"; do
      if [ "$SECONDS" -ge "$deadline" ]; then
        echo "$name does not stop by itself: killed"
        kill -s KILL "$pid" 2>/dev/null || true
        deadline=$((SECONDS + 1))
      fi
      sleep 0.05
    done
    rm -f "$state/$name.pid"
  done
}

stop_signal() {
  [ "$signal" != KILL ] || { echo KILL && return; }
  # Postgres' "fast" shutdown: it does not wait for its clients.
  [ "$1" = postgres ] && echo INT || echo TERM
}

# ---- what is installed ---------------------------------------------------------------------------

# Debian packages. RUNLEVEL=1 keeps them from starting services of their own.
install_packages() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "please install $* (this script does it itself on Debian as root)"
  fi
  echo "installing $*"
  local log=$cache/apt.log
  mkdir -p "$cache"
  {
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
      { apt-get update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
  } >"$log" 2>&1 9>&- || {
    tail -n 20 "$log" >&2
    die "cannot install $*"
  }
}

fingerprint() { cat "$@" | sha256sum | cut -c1-16; }

# Two instances share the cache: one of them fills it.
with_cache_lock() {
  mkdir -p "$cache"
  (
    flock 8
    "$@"
  ) 8>"$cache/lock"
}
