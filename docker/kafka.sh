#!/usr/bin/env bash
# Real Apache Kafka without Docker: one KRaft node (broker and controller in one process) from the jars on Maven Central.
#
#   docker/kafka.sh start                 fetches the jars once (54 MB), formats the storage once, starts, returns when the broker answers
#   docker/kafka.sh stop | status | wipe  stops it | says whether it runs (exit code 3: it does not) | stops it and deletes its data
#   docker/kafka.sh topic NAME [PARTITIONS] [key=value ...]   creates a topic unless it exists; key=value are topic settings
#   docker/kafka.sh topics                lists the topics
#   docker/kafka.sh read TOPIC [MAX]      prints "partition offset key value" of committed records from the beginning, until none come for 3 s or MAX were read
#   docker/kafka.sh write TOPIC           writes the lines of stdin as records: "key => value", or a value without key; a value NULL is a null (a deletion)
#   docker/kafka.sh jars                  fetches the jars only, and prints the classpath
#
# Options, anywhere: --port P (default 9092; the controller listens on P+1), --dir DIR (default CACHE/kafka-data-P). Instances with different ports
# live side by side. Every command may be repeated. Environment: TIDEMARK_CACHE (default ~/.cache/tidemark), KAFKA_HEAP (default 1g), KAFKA_SETTINGS (more
# settings of the broker, `key=value` separated by blanks).
# Topics are not created by a mere mention (auto.create.topics.enable=false), and nothing expires (log.retention.ms=-1).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=4.1.0
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
port=9092 dir='' words=()
while [ $# -gt 0 ]; do
  case $1 in
    --port) port=${2:?--port needs a number}; shift 2 ;;
    --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
    -h | --help) sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) words+=("$1"); shift ;;
  esac
done
set -- ${words[@]+"${words[@]}"}
command=${1:-help}
[ $# -eq 0 ] || shift
dir=${dir:-$cache/kafka-data-$port}
broker=127.0.0.1:$port
jars=$cache/kafka-$version

die() { echo "kafka.sh: $*" >&2; exit 1; }
# shellcheck source=service.sh
. "$here/service.sh"

# Fetches the jars into $jars; `complete` is the description they were fetched by, so that an interrupted or outdated download is taken up again.
fetch() {
  cmp -s "$here/kafka-pom.xml" "$jars/complete" && return
  command -v java >/dev/null || die "java is missing (Debian: apt-get install default-jre-headless)"
  command -v mvn >/dev/null || die "mvn is missing (Debian: apt-get install maven)"
  mkdir -p "$jars"
  exec 8>"$jars/lock"
  flock 8
  if ! cmp -s "$here/kafka-pom.xml" "$jars/complete"; then
    echo "fetching Apache Kafka $version from Maven Central into $jars" >&2
    mvn -q -B -Dstyle.color=never -f "$here/kafka-pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars/jars" >&2
    cp "$here/kafka-pom.xml" "$jars/complete"
  fi
  exec 8>&-
}

pid() { service_pid "kafka.Kafka $dir/server.properties"; }

# One short-lived Java tool of the distribution, quiet unless something is wrong.
tool() {
  fetch
  printf '%s\n' 'rootLogger.level=error' 'rootLogger.appenderRef.e.ref=e' 'appender.e.type=Console' 'appender.e.name=e' 'appender.e.target=SYSTEM_ERR' \
    'appender.e.layout.type=PatternLayout' 'appender.e.layout.pattern=%p %m%n' >"$jars/quiet.properties.$$"
  mv -f "$jars/quiet.properties.$$" "$jars/quiet.properties"
  java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto "-Dlog4j2.configurationFile=$jars/quiet.properties" -cp "$jars/jars/*" "$@"
}

configure() {
  cat >"$dir/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$dir/data
# a single node cannot hold a second copy
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.retention.ms=-1
log.retention.bytes=-1
EOF
  [ -z "${KAFKA_SETTINGS:-}" ] || tr ' ' '\n' <<<"$KAFKA_SETTINGS" >>"$dir/server.properties"
  cat >"$dir/log4j2.properties" <<'EOF'
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %m (%c)%n
EOF
}

start() {
  fetch
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  exec 9>"$dir/lock"
  flock 9
  if pid >/dev/null; then
    echo "kafka runs on $broker (process $(pid))"
    return
  fi
  configure
  if [ ! -e "$dir/data/meta.properties" ]; then
    tool kafka.tools.StorageTool format -t "$(tool kafka.tools.StorageTool random-uuid)" -c "$dir/server.properties" >"$dir/format.log" 2>&1 || die "cannot format $dir/data: $(tail -n 3 "$dir/format.log")"
  fi
  : >"$dir/kafka.log"
  # A session of its own: Ctrl-C in the terminal that called us is not meant for the broker. It must not inherit our lock. The collector's settings are those of Kafka's own start script.
  setsid nohup java "-Xmx${KAFKA_HEAP:-1g}" -Xms256m -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent "-Dlog4j2.configurationFile=$dir/log4j2.properties" -cp "$jars/jars/*" kafka.Kafka "$dir/server.properties" \
    >>"$dir/kafka.log" 2>&1 </dev/null 9>&- &
  echo $! >"$dir/pid"
  started() { grep -q 'Kafka Server started' "$dir/kafka.log"; }
  why() { echo "see $dir/kafka.log; $(grep -E 'ERROR|FATAL|Exception' "$dir/kafka.log" | head -n 5)"; }
  service_await kafka 60 started why
  echo "kafka runs on $broker (process $(cat "$dir/pid"), log $dir/kafka.log)"
}

stop() {
  [ -d "$dir" ] || return 0
  dir=$(cd "$dir" && pwd)
  service_stop "kafka on $broker" "$(pid || true)" 15
}

case $command in
  start) start ;;
  stop) stop ;;
  status)
    if pid >/dev/null; then echo "kafka runs on $broker (process $(pid), data in $dir)"; else echo "kafka does not run on $broker"; exit 3; fi ;;
  wipe) stop; rm -rf "$dir" ;;
  topic)
    name=${1:?topic NAME [PARTITIONS] [key=value ...]} partitions=${2:-1}
    shift $(($# < 2 ? $# : 2))
    settings=()
    for setting in "$@"; do settings+=(--config "$setting"); done
    tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$broker" --create --if-not-exists --topic "$name" --partitions "$partitions" --replication-factor 1 ${settings[@]+"${settings[@]}"} ;;
  topics) tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$broker" --list ;;
  read)
    topic=${1:?read TOPIC [MAX]} limit=()
    [ $# -lt 2 ] || limit=(--max-messages "$2")
    tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$broker" --topic "$topic" --from-beginning --isolation-level read_committed --timeout-ms 3000 ${limit[@]+"${limit[@]}"} \
      --property print.partition=true --property print.offset=true --property print.key=true 2> >(grep -vE 'Error processing message, terminating|TimeoutException|Processed a total of|consumer.ConsoleConsumer|^\s*$' >&2 || true) ;;
  write)
    topic=${1:?write TOPIC}
    # The null marker is a character that JSON text does not have; a line without key gets one.
    sed -E '/ => /!s/^/\x01 => /; s/ => NULL$/ => \x01/' | tool org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$broker" --topic "$topic" \
      --property parse.key=true --property 'key.separator= => ' --property "null.marker=$(printf '\001')" ;;
  jars) fetch; echo "$jars/jars/*" ;;
  help) exec "${BASH_SOURCE[0]}" --help ;;
  *) die "unknown command '$command' (start, stop, status, wipe, topic, topics, read, write, jars)" ;;
esac
