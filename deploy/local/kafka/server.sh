# Apache Kafka from its published jars (pom.xml), KRaft: each node is broker and controller.
# shellcheck shell=bash disable=SC2154

# Fixed: a state folder's brokers recognise each other by it.
kafka_cluster_id=dG9rZW5tZXRlci1sb2NhbA

kafka_jars() { echo "$cache/kafka/jars-$(fingerprint "$here/kafka/pom.xml")"; }

kafka_java() {
  local java=${JAVA_HOME:+$JAVA_HOME/bin/}java
  command -v "$java" >/dev/null || return 1
  [ "$("$java" -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p')" -ge 17 ] && echo "$java"
}

kafka_prepare() {
  kafka_java >/dev/null || install_packages openjdk-17-jre-headless
  kafka_java >/dev/null || die "Java 17 or newer is needed"
  [ -d "$(kafka_jars)" ] || with_cache_lock kafka_download
}

kafka_download() {
  local jars
  jars=$(kafka_jars)
  [ ! -d "$jars" ] || return 0
  command -v mvn >/dev/null || install_packages maven
  echo "downloading Apache Kafka (54 MB)"
  rm -rf "$jars.new"
  mvn --batch-mode --quiet --strict-checksums -f "$here/kafka/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$jars.new" >"$cache/mvn.log" 2>&1 || {
    tail -n 20 "$cache/mvn.log" >&2
    die "cannot download Apache Kafka"
  }
  mv "$jars.new" "$jars"
}

kafka_start() {
  local name=$1 folder=$state/$1 java jit=()
  java=$(kafka_java)
  # For a broker that runs some minutes the optimising compiler takes more of the machine than its code
  # gives back.
  [ "$kafka_jit" = full ] || jit=(-XX:TieredStopAtLevel=1)
  mkdir -p "$folder"
  kafka_properties "$name" >"$folder/server.properties"
  # Formatting is a JVM of its own: each broker's runs beside the others'. The shell then becomes the
  # broker, so that the pid stays.
  # shellcheck disable=SC2016
  spawn "$name" bash -euc '
    folder=$1 cluster_id=$2 java=("${@:3}")
    if [ ! -f "$folder/complete" ]; then
      rm -rf "$folder/data"
      "${java[@]}" -Xmx128m kafka.tools.StorageTool format \
        --cluster-id "$cluster_id" --config "$folder/server.properties"
      : >"$folder/complete"
    fi
    exec "${java[@]}" -Xms64m -Xmx512m kafka.Kafka "$folder/server.properties"
  ' kafka "$folder" "$kafka_cluster_id" "$java" -XX:+UseSerialGC ${jit[@]+"${jit[@]}"} -Djava.awt.headless=true \
    "-Dlog4j2.configurationFile=$here/kafka/log4j2.properties" -cp "$(kafka_jars)/*"
}

kafka_controller_port() { echo $((port_base + 20 + $1)); }

kafka_properties() {
  local id=${1#kafka-} voters='' voter copies=$brokers listener=PLAINTEXT
  [ "$tls" != yes ] || listener=SASL_SSL
  for ((voter = 1; voter <= brokers; voter++)); do
    voters+="${voters:+,}$voter@127.0.0.1:$(kafka_controller_port "$voter")"
  done
  cat <<CONF
process.roles=broker,controller
node.id=$id
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=$listener://127.0.0.1:$(port_of "$1"),CONTROLLER://127.0.0.1:$(kafka_controller_port "$id")
advertised.listeners=$listener://127.0.0.1:$(port_of "$1")
listener.security.protocol.map=$listener:$listener,CONTROLLER:PLAINTEXT
inter.broker.listener.name=$listener
log.dirs=$state/$1/data
auto.create.topics.enable=false
default.replication.factor=$copies
min.insync.replicas=$((copies > 1 ? 2 : 1))
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$((copies > 1 ? 2 : 1))
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=$((copies > 1 ? 2 : 1))
# The default is 3 and 8 threads for a machine of its own: here they would only take turns.
num.network.threads=1
num.io.threads=2
# Tests kill consumers and brokers and wait for the others to notice.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# A killed broker may come back only after its old session has ended.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
CONF
  [ "$tls" != yes ] || cat <<CONF
ssl.keystore.type=PEM
ssl.keystore.location=$(tls_file server.pem)
ssl.truststore.type=PEM
ssl.truststore.location=$(tls_file ca.crt)
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="tokenmeter" password="$local_password" user_tokenmeter="$local_password";
CONF
}

# As librdkafka calls them (https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md).
kafka_client_options() {
  echo "security.protocol=SASL_SSL,sasl.mechanism=PLAIN,sasl.username=tokenmeter,sasl.password=$local_password,ssl.ca.location=$(tls_file ca.crt)"
}

kafka_ready() { grep -q 'Kafka Server started' "$state/log/$1.log" 2>/dev/null; }
kafka_retry() { return 1; }
kafka_after() { :; }
