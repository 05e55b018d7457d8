#!/usr/bin/env bash
# A cluster on one machine: real Kafka, an S3 store for checkpoints, and three Tidemark nodes. The first of the demo's stories is told while each node is killed
# in turn, and at the end it is counted whether every match has arrived once. `make cluster` calls it, `make cluster-stop` calls `cluster.sh stop`.
#
#   docker/demo/cluster.sh            starts afresh, tells the story, and leaves the cluster running, with a few likes a second; Ctrl-C before that ends everything
#   docker/demo/cluster.sh kill N     kills node N: kill -9
#   docker/demo/cluster.sh revive N   starts it again with the folder that it had
#   docker/demo/cluster.sh check      waits until the cluster is whole, stops the likes and counts; then they go on
#   docker/demo/cluster.sh stop       ends everything and removes its data
#
# TIDEMARK_BINARY=FILE shows that server instead of building one; CLUSTER_SECONDS is how long is watched what comes of each step (5).
# All data lives in $TIDEMARK_CACHE/cluster (default ~/.cache/tidemark/cluster). Ports: CLUSTER_KAFKA_PORT (19292; Kafka's controller is the next one),
# CLUSTER_S3_PORT (7270), CLUSTER_SQL_PORT (4576 for node 1; HTTP and RPC are the next two, and node 2 is at 4586, node 3 at 4596).
# The commands beside the first know the ports that the running cluster was started with.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=stage.sh
. "$here/stage.sh"
dir=$cache/cluster
kafka_port=${CLUSTER_KAFKA_PORT:-19292} s3_port=${CLUSTER_S3_PORT:-7270} sql_port=${CLUSTER_SQL_PORT:-4576}
if [ "${1:-start}" != start ] && [ -e "$dir/ports" ]; then read -r kafka_port s3_port sql_port <"$dir/ports"; fi
broker=127.0.0.1:$kafka_port
sql_ports=$sql_port,$((sql_port + 10)),$((sql_port + 20))
join=127.0.0.1:$((sql_port + 2)),127.0.0.1:$((sql_port + 12)),127.0.0.1:$((sql_port + 22))

kafka() { "$root/docker/kafka.sh" "$@" --port "$kafka_port" --dir "$dir/kafka"; }
s3() { "$root/docker/s3.sh" "$@" --port "$s3_port" --dir "$dir/s3"; }

stop() {
  finish likes TERM
  # All at once: what is left of a cluster has no majority to wait for.
  local number ending=()
  for number in 1 2 3; do
    finish "node$number" TERM &
    ending+=($!)
  done
  wait "${ending[@]}"
  s3 stop >/dev/null
  kafka stop >/dev/null
  rm -rf "$dir"
}

start_node() {
  local number=$1 port=$((sql_port + 10 * ($1 - 1))) store
  mapfile -t store < <(s3 env)
  launch "node$number" env "${store[@]}" "$(cat "$dir/binary")" start --node-id "$number" --data-dir "$dir/node$number" --workers 2 --memory-limit 25% \
    --sql "127.0.0.1:$port" --http "127.0.0.1:$((port + 1))" --rpc "127.0.0.1:$((port + 2))" --join "$join" --checkpoint-url s3://tidemark/cluster \
    --cluster-secret-file "$dir/cluster.secret" --secret-key-file "$dir/secret.key"
}

# Runs a command for SECONDS at most, and says so if it would take longer.
within() {
  local seconds=$1 status=0
  shift
  timeout --foreground -k 5 "$seconds" "$@" || status=$?
  case $status in 124 | 137) printf '%sno end within %s s: %s%s\n' "$red" "$seconds" "$*" "$plain" >&2 ;; esac
  return $status
}

# One of the moving parts of cluster.py: SECONDS WHAT ...
part() {
  local seconds=$1 what=$2
  shift 2
  within "$seconds" "$python" "$here/cluster.py" "$what" --broker "$broker" --ports "$sql_ports" --folder "$dir" "$@"
}

# The first node that answers gets the statements.
sql() {
  within 60 psql "host=127.0.0.1,127.0.0.1,127.0.0.1 port=$sql_ports dbname=dev user=root connect_timeout=5" -qX -P pager=off -v ON_ERROR_STOP=1 -v broker="$broker" "$@"
}

like() { launch likes "$python" "$here/cluster.py" likes --broker "$broker" --ports "$sql_ports" --folder "$dir" --rate "$1"; }

# Nobody likes anybody while it is counted; then a few do again.
check() {
  step "The likes stop, and it is counted"
  finish likes TERM
  part 150 check
}

node_of() {
  case ${1:-} in 1 | 2 | 3) ;; *) fail "which node? 1, 2 or 3" ;; esac
  [ -e "$dir/binary" ] || fail "the cluster does not run: make cluster"
}

case ${1:-start} in
  start) ;;
  stop)
    stop
    echo "the cluster is stopped, its data is gone"
    exit ;;
  kill)
    node_of "${2:-}"
    running "node$2" >/dev/null || fail "node $2 does not run: docker/demo/cluster.sh revive $2"
    finish "node$2" KILL
    echo "node $2 is killed (kill -9)"
    exit ;;
  revive)
    node_of "${2:-}"
    ! running "node$2" >/dev/null || fail "node $2 runs"
    start_node "$2"
    echo "node $2 is started; SHOW CLUSTER tells when it works again"
    exit ;;
  check)
    node_of 1
    part 90 whole --seconds 60
    status=0
    check || status=$?
    like 2
    exit $status ;;
  *) fail "cluster.sh [start | kill N | revive N | check | stop]" ;;
esac

end_on_interrupt
[ ! -e "$dir" ] || step "Ending the cluster that is there"
stop
for port in "$kafka_port" $((kafka_port + 1)); do free "$port" Kafka CLUSTER_KAFKA_PORT=29292 make cluster; done
free "$s3_port" "the S3 store" CLUSTER_S3_PORT=7370 make cluster
for node in 0 10 20; do
  for port in 0 1 2; do free $((sql_port + node + port)) Tidemark CLUSTER_SQL_PORT=5576 make cluster; done
done

step "Looking for what is needed"
"$root/docker/deps.sh" cluster
find_binary

end_on_failure
mkdir -p "$dir"
echo "$binary" >"$dir/binary"
echo "$kafka_port $s3_port $sql_port" >"$dir/ports"

step "Starting Apache Kafka on $broker, and an S3 store for checkpoints on 127.0.0.1:$s3_port"
kafka start >/dev/null
s3 start >/dev/null
part 60 topics

step "Starting three nodes, with a secret that only they know"
(umask 077; for name in cluster.secret secret.key; do head -c 32 /dev/urandom | base64 >"$dir/$name"; done)
for number in 1 2 3; do
  start_node "$number"
  port=$((sql_port + 10 * (number - 1)))
  echo "    ${dim}tidemark start --node-id $number --sql 127.0.0.1:$port --rpc 127.0.0.1:$((port + 2)) --join $join ...$plain"
done
part 90 whole --seconds 60

show_sql "$here/1-matches.sql"
sql -f "$here/1-matches.sql"
like 30
part 600 story --seconds "${CLUSTER_SECONDS:-5}"
check
step "psql -c 'SHOW CLUSTER' -c 'SHOW JOBS'"
sql -c 'SHOW CLUSTER' -c 'SHOW JOBS'
like 2

cat <<EOF

${bold}It keeps running, with a few likes a second.${plain} Connect to whichever node answers:

    ${bold}psql 'host=127.0.0.1,127.0.0.1,127.0.0.1 port=$sql_ports dbname=dev user=root'${plain}

and try:

    SHOW CLUSTER;
    SHOW PLACEMENT;
    SELECT * FROM matches ORDER BY matched_at DESC LIMIT 10;
    CREATE MATERIALIZED VIEW popular AS SELECT liked, count(*) AS likes FROM likes GROUP BY liked;
    SELECT * FROM popular ORDER BY likes DESC LIMIT 5;      -- again, a second later

or kill whom you like, and count again:

    docker/demo/cluster.sh kill 2
    docker/demo/cluster.sh revive 2
    docker/demo/cluster.sh check

The matches as Kafka has them:  docker/kafka.sh read matches --port $kafka_port --dir $dir/kafka
Logs: $dir/node1.log, node2.log, node3.log
${bold}make cluster-stop${plain} ends everything and removes its data.
EOF
