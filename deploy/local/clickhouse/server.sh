# The ClickHouse engine (libchdb.so, an npm package) behind the HTTP server of this folder.
# shellcheck shell=bash disable=SC2154

clickhouse_connections=8

clickhouse_engine() {
  echo "$cache/clickhouse/engine-$(fingerprint "$here/clickhouse/package-lock.json")/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so"
}

clickhouse_program() {
  echo "$cache/clickhouse/server$([ "$tls" != yes ] || echo -tls)-$(fingerprint "$here"/clickhouse/Cargo.{toml,lock} "$here"/clickhouse/src/*.rs)"
}

clickhouse_prepare() {
  [ "$(uname -sm)" = "Linux x86_64" ] || die "the ClickHouse engine is there for Linux on x86-64 only"
  [ -f "$(clickhouse_engine)" ] || with_cache_lock clickhouse_download
  [ -x "$(clickhouse_program)" ] || with_cache_lock clickhouse_build
}

# `npm ci` compares what it gets with the lock file's SHA-512.
clickhouse_download() {
  local folder
  folder=$(dirname "$(dirname "$(dirname "$(dirname "$(clickhouse_engine)")")")")
  [ ! -d "$folder" ] || return 0
  command -v npm >/dev/null || install_packages npm
  echo "downloading the ClickHouse engine (130 MB, 540 MB unpacked)"
  rm -rf "$folder.new"
  mkdir -p "$folder.new"
  cp "$here"/clickhouse/package{,-lock}.json "$folder.new"
  (cd "$folder.new" && npm ci --ignore-scripts --no-audit --no-fund) >"$cache/npm.log" 2>&1 || {
    tail -n 20 "$cache/npm.log" >&2
    die "cannot download the ClickHouse engine"
  }
  mv "$folder.new" "$folder"
}

clickhouse_build() {
  command -v cargo >/dev/null || die "cargo is needed to build the HTTP server of the ClickHouse engine"
  echo "building the HTTP server of the ClickHouse engine"
  local target=$cache/clickhouse/target program
  program=$(clickhouse_program)
  local features=()
  [ "$tls" != yes ] || features=(--features tls)
  (cd "$here/clickhouse" &&
    cargo build --quiet --release --locked --target-dir "$target" ${features[@]+"${features[@]}"}) >&2 ||
    die "cannot build deploy/local/clickhouse"
  cp "$target/release/tokenmeter-local-clickhouse" "$program.new"
  mv "$program.new" "$program"
}

clickhouse_start() {
  local files=()
  [ "$tls" != yes ] || files=("$(tls_file server.crt)" "$(tls_file server.key)")
  mkdir -p "$state/clickhouse"
  spawn clickhouse env TZ=UTC "$(clickhouse_program)" "$(clickhouse_engine)" "$state/clickhouse" \
    "127.0.0.1:$(port_of clickhouse)" "$clickhouse_connections" ${files[@]+"${files[@]}"}
}

clickhouse_ready() {
  local line
  # Its own word first: another server may answer on our port.
  grep -q '^listening' "$state/log/clickhouse.log" 2>/dev/null || return 1
  if [ "$tls" = yes ]; then
    line=$(clickhouse_ping | timeout 5 openssl s_client -quiet -verify_return_error \
      -CAfile "$(tls_file ca.crt)" -connect "127.0.0.1:$(port_of clickhouse)" 2>/dev/null | head -n 1) || return 1
  else
    {
      exec 7<>"/dev/tcp/127.0.0.1/$(port_of clickhouse)" || return 1
      clickhouse_ping >&7
      read -r -t 5 line <&7 || line=
      exec 7>&-
    } 2>/dev/null
  fi
  [[ $line == *" 200 "* ]]
}

clickhouse_ping() { printf 'GET /ping HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n'; }

# The threads of a killed one may hold its port for another moment.
clickhouse_retries=0
clickhouse_retry() {
  grep -q 'Address already in use' "$state/log/clickhouse.log" || return 1
  clickhouse_retries=$((clickhouse_retries + 1))
  [ "$clickhouse_retries" -le 10 ] || return 1
  sleep 0.3
  clickhouse_start
}
clickhouse_after() { :; }
