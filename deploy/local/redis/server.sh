# Redis 7 or newer from the distribution; `redis-replica` is a second one that follows the first.
# shellcheck shell=bash disable=SC2154

redis_prepare() {
  if ! command -v redis-server >/dev/null || ! command -v redis-cli >/dev/null; then
    install_packages redis-server redis-tools
  fi
  local version
  version=$(redis-server --version | sed 's/.*v=\([0-9]*\).*/\1/')
  [ "$version" -ge 7 ] || die "Redis 7 or newer is needed, not $version"
}

redis_start() {
  local name=$1
  mkdir -p "$state/$name"
  {
    cat <<CONF
bind 127.0.0.1
dir $state/$name
daemonize no
# The command line keeps naming the state folder, which says whose process it is.
set-proc-title no
save ""
maxmemory 1gb
maxmemory-policy noeviction
# A replica starts following at once, not after five seconds.
repl-diskless-sync-delay 0
repl-backlog-size 64mb
CONF
    if [ "$tls" = yes ]; then
      cat <<CONF
port 0
tls-port $(port_of "$name")
tls-cert-file $(tls_file server.crt)
tls-key-file $(tls_file server.key)
tls-ca-cert-file $(tls_file ca.crt)
tls-auth-clients no
tls-replication yes
requirepass $local_password
masterauth $local_password
CONF
    else
      echo "port $(port_of "$name")"
    fi
    if [ "$redis_persistence" = aof ]; then
      printf 'appendonly yes\nappendfsync everysec\n'
    else
      echo 'appendonly no'
    fi
    [ "$name" = redis ] || echo "replicaof 127.0.0.1 $(port_of redis)"
  } >"$state/$name/redis.conf"
  spawn "$name" "$(command -v redis-server)" "$state/$name/redis.conf"
}

# redis_ask NAME COMMAND …
redis_ask() {
  local access=()
  [ "$tls" != yes ] || access=(--tls --cacert "$(tls_file ca.crt)" --no-auth-warning -a "$local_password")
  redis-cli -h 127.0.0.1 -p "$(port_of "$1")" ${access[@]+"${access[@]}"} "${@:2}"
}

redis_ready() {
  [ "$(redis_ask "$1" ping 2>/dev/null)" = PONG ] || return 1
  # Not another server on our port.
  redis_ask "$1" info server | tr -d '\r' | grep -qx "process_id:$(pid_of "$1")" || return 1
  # A replica is ready when it has what the first one has, as far as that one runs; a promoted one is.
  [ "$1" = redis ] || ! alive redis ||
    redis_ask "$1" info replication | grep -qE 'master_link_status:up|role:master'
}

redis_retry() { return 1; }
redis_after() { :; }
