# Certificates for `up --tls`: an authority of this state folder's own, and the servers' certificate.
# shellcheck shell=bash disable=SC2154

# What Redis' clients, Postgres' role and Kafka's user give: loopback only, and thrown away with the folder.
local_password=tokenmeter-local

tls_file() { echo "$state/tls/$1"; }

tls_prepare() {
  [ "$tls" = yes ] || return 0
  command -v openssl >/dev/null || install_packages openssl
  [ ! -f "$(tls_file complete)" ] || return 0
  rm -rf "$state/tls"
  mkdir "$state/tls"
  (
    cd "$state/tls"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
      -subj "/CN=tokenmeter local authority" -addext basicConstraints=critical,CA:true \
      -keyout ca.key -out ca.crt
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=localhost" \
      -keyout server.key -out server.csr
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out server.crt \
      -extfile <(printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:false\n')
    cat server.key server.crt >server.pem
  ) >"$state/log/tls.log" 2>&1 || { cat "$state/log/tls.log" >&2 && die "the certificates were not made"; }
  chmod 600 "$state/tls"/*.key "$state/tls/server.pem"
  : >"$(tls_file complete)"
}
