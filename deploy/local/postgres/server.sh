# Postgres 15 or newer from the distribution. It refuses to run as root: then as user `postgres`.
# shellcheck shell=bash disable=SC2154

# The server's programs: Debian keeps them out of PATH.
postgres_programs() {
  local folder
  for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -Vr) \
    "$(pg_config --bindir 2>/dev/null || true)"; do
    if [ -x "$folder/initdb" ] && [ "$("$folder/initdb" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 15 ]; then
      echo "$folder"
      return
    fi
  done
  return 1
}

postgres_prepare() {
  postgres_programs >/dev/null || install_packages postgresql
  postgres_programs >/dev/null || die "no Postgres of version 15 or newer"
}

as_postgres() {
  if [ "$(id -u)" = 0 ]; then
    setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
  else
    "$@"
  fi
}

postgres_start() {
  local programs run=()
  programs=$(postgres_programs)
  if [ "$(id -u)" = 0 ]; then
    run=(setpriv --reuid=postgres --regid=postgres --init-groups --)
    as_postgres test -x "$state" || die "user postgres cannot enter $state: choose another --state"
  fi
  if [ ! -f "$state/postgres/complete" ]; then
    rm -rf "$state/postgres"
    mkdir -m 700 "$state/postgres"
    [ "$(id -u)" != 0 ] || chown postgres: "$state/postgres"
    (cd / && as_postgres "$programs/initdb" -D "$state/postgres" -U postgres -A trust -E UTF8 \
      --locale=C.UTF-8 --no-sync) >"$state/log/initdb.log" 2>&1 9>&- ||
      { cat "$state/log/initdb.log" >&2 && die "initdb failed"; }
  fi
  local access=()
  if [ "$tls" = yes ]; then
    access=(-c ssl=on -c ssl_cert_file="$state/postgres/server.crt" -c ssl_key_file="$state/postgres/server.key")
    # It reads a key of its own user only.
    cp "$(tls_file server.crt)" "$(tls_file server.key)" "$state/postgres"
    [ "$(id -u)" != 0 ] || chown postgres: "$state/postgres"/server.{crt,key}
    printf 'hostssl all postgres 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n' \
      >"$state/postgres/pg_hba.conf"
  fi
  spawn postgres ${run[@]+"${run[@]}"} "$programs/postgres" -D "$state/postgres" ${access[@]+"${access[@]}"} \
    -c listen_addresses=127.0.0.1 -c port="$(port_of postgres)" -c unix_socket_directories= \
    -c max_connections=200 -c fsync=on -c timezone=UTC -c log_timezone=UTC
}

postgres_sql() {
  "$(postgres_programs)/psql" -h 127.0.0.1 -p "$(port_of postgres)" -U postgres -d postgres -XqAt \
    -v ON_ERROR_STOP=1 -c "$1"
}

# Its own word first: another server may answer on our port.
postgres_ready() {
  local lines=()
  mapfile -t lines 2>/dev/null <"$state/postgres/postmaster.pid" || return 1
  [ "${lines[0]-}" = "$(pid_of postgres)" ] && [[ ${lines[7]-} == ready* ]] &&
    postgres_sql 'SELECT 1' >/dev/null 2>&1
}

# The processes of a killed one may hold its shared memory for another moment.
postgres_retry() {
  grep -qE 'pre-existing shared memory block|lock file "postmaster.pid" already exists' "$state/log/postgres.log" || return 1
  sleep 0.3
  postgres_start
}

postgres_after() {
  [ ! -f "$state/postgres/complete" ] || return 0
  # CREATEDB: each test makes a database of its own.
  [ "$(postgres_sql "SELECT count(*) FROM pg_roles WHERE rolname = 'tokenmeter'")" = 1 ] ||
    postgres_sql "CREATE ROLE tokenmeter LOGIN CREATEDB PASSWORD '$local_password'"
  [ "$(postgres_sql "SELECT count(*) FROM pg_database WHERE datname = 'tokenmeter'")" = 1 ] ||
    postgres_sql 'CREATE DATABASE tokenmeter OWNER tokenmeter'
  : >"$state/postgres/complete"
}
