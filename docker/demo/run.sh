#!/usr/bin/env bash
# The demo: real Kafka, Tidemark, and two stories told live in the terminal. `make demo` calls it, `make demo-stop` calls `run.sh stop`;
# `run.sh crash` kills Tidemark with kill -9 and starts it again.
# Every run starts afresh. Afterwards Kafka, Tidemark and a trickle of events keep running, to be explored with psql; Ctrl-C before that ends everything.
# TIDEMARK_BINARY=FILE shows that server instead of building one; DEMO_SECONDS is how long matches are shown (15).
# All data lives in $TIDEMARK_CACHE/demo (default ~/.cache/tidemark/demo). Ports: DEMO_KAFKA_PORT (19092; Kafka's controller is the next one),
# DEMO_SQL_PORT (4566; HTTP and RPC are the next two). `stop` and `crash` know the ports that the running demo was started with.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=stage.sh
. "$here/stage.sh"
dir=$cache/demo
kafka_port=${DEMO_KAFKA_PORT:-19092} sql_port=${DEMO_SQL_PORT:-4566}
if [ "${1:-start}" != start ] && [ -e "$dir/ports" ]; then read -r kafka_port sql_port <"$dir/ports"; fi
broker=127.0.0.1:$kafka_port http=127.0.0.1:$((sql_port + 1))

stop() {
  finish events TERM
  finish tidemark TERM
  "$root/docker/kafka.sh" stop --port "$kafka_port" --dir "$dir/kafka" >/dev/null
  rm -rf "$dir"
}

ready() { "$python" -c "import urllib.request as u; u.urlopen('http://$http/ready', timeout=1)" 2>/dev/null; }

# Whether the server's own process lives.
alive() { kill -0 "$(cat "$dir/tidemark.pid")" 2>/dev/null; }

start_tidemark() {
  local binary
  binary=$(cat "$dir/binary")
  launch tidemark "$binary" start --data-dir "$dir/data" --sql "127.0.0.1:$sql_port" --http "$http" --rpc "127.0.0.1:$((sql_port + 2))"
  for _ in $(seq 300); do
    if ready && alive; then return; fi
    alive || break
    sleep 0.1
  done
  tail -n 20 "$dir/tidemark.log" >&2
  fail "Tidemark did not start; the end of its log is above"
}

sql() { psql -h 127.0.0.1 -p "$sql_port" -d dev -U root -qX -v ON_ERROR_STOP=1 -v broker="$broker" "$@"; }

case ${1:-start} in
  start) ;;
  stop)
    stop
    echo "the demo is stopped, its data is gone"
    exit ;;
  crash)
    [ -e "$dir/tidemark.pid" ] || fail "the demo does not run: make demo"
    finish tidemark KILL
    step "Tidemark is killed (kill -9); starting it again"
    start_tidemark
    echo "it answers again, from its log and its last checkpoint"
    exit ;;
  *) fail "run.sh [start | stop | crash]" ;;
esac

end_on_interrupt
[ ! -e "$dir" ] || step "Ending the demo that is there"
stop
for port in "$kafka_port" $((kafka_port + 1)); do free "$port" Kafka DEMO_KAFKA_PORT=29092 make demo; done
for port in "$sql_port" $((sql_port + 1)) $((sql_port + 2)); do free "$port" Tidemark DEMO_SQL_PORT=5566 make demo; done

step "Looking for what is needed"
"$root/docker/deps.sh"
find_binary

end_on_failure
mkdir -p "$dir"
echo "$binary" >"$dir/binary"
echo "$kafka_port $sql_port" >"$dir/ports"

step "Starting Apache Kafka on $broker"
"$root/docker/kafka.sh" start --port "$kafka_port" --dir "$dir/kafka" >/dev/null
"$python" "$here/demo.py" topics --broker "$broker"

step "Starting Tidemark on 127.0.0.1:$sql_port"
start_tidemark

launch events "$python" "$here/demo.py" events --broker "$broker" --folder "$dir"
for file in "$here"/*.sql; do
  show_sql "$file"
  sql -f "$file"
done

"$python" "$here/demo.py" show --broker "$broker" --sql "127.0.0.1:$sql_port" --seconds "${DEMO_SECONDS:-15}"

cat <<EOF

${bold}It keeps running, with a few events a second.${plain} Connect:

    ${bold}psql -h 127.0.0.1 -p $sql_port -d dev -U root${plain}

and try:

    SELECT * FROM matches ORDER BY matched_at DESC LIMIT 10;
    SELECT * FROM revenue ORDER BY minute DESC, country;
    CREATE MATERIALIZED VIEW popular AS SELECT liked, count(*) AS likes FROM likes GROUP BY liked;
    SELECT * FROM popular ORDER BY likes DESC LIMIT 5;      -- again, a second later
    SHOW JOBS;
    \\d revenue

or kill it with kill -9 and start it again, and see that nothing is lost and nothing comes twice:

    docker/demo/run.sh crash

The matches as Kafka has them:  docker/kafka.sh read matches --port $kafka_port --dir $dir/kafka
Status page: http://$http/   Metrics: http://$http/metrics   Log: $dir/tidemark.log
${bold}make demo-stop${plain} ends everything and removes its data.
EOF
