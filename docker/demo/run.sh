#!/usr/bin/env bash
# The demo: real Kafka, Tidemark, and two stories told live in the terminal. `make demo` calls it, `make demo-stop` calls `run.sh stop`;
# `run.sh crash` kills Tidemark with kill -9 and starts it again.
# Every run starts afresh. Afterwards Kafka, Tidemark and a trickle of events keep running, to be explored with psql; Ctrl-C before that ends everything.
# TIDEMARK_BINARY=FILE shows that server instead of building one.
# All data lives in $TIDEMARK_CACHE/demo (default ~/.cache/tidemark/demo). Ports: DEMO_KAFKA_PORT (19092), DEMO_SQL_PORT (4566; HTTP and RPC are the next two).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
demo=$cache/demo
kafka_port=${DEMO_KAFKA_PORT:-19092} sql_port=${DEMO_SQL_PORT:-4566}
broker=127.0.0.1:$kafka_port http=127.0.0.1:$((sql_port + 1))
python=$cache/venv/bin/python
PATH=$PATH:$HOME/.cargo/bin

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'; else bold='' dim='' red='' plain=''; fi
step() { printf '%s==>%s %s%s%s\n' "$dim" "$plain" "$bold" "$*" "$plain"; }
fail() { printf '%s%s%s\n' "$red" "$*" "$plain" >&2; exit 1; }

# Starts a process of its own session: NAME COMMAND... ; its id is kept in NAME.pid, its output in NAME.log.
launch() {
  local name=$1
  shift
  setsid nohup "$@" >"$demo/$name.log" 2>&1 </dev/null &
  echo $! >"$demo/$name.pid"
}

# Ends what launch started under NAME, if the id still belongs to it: TERM first, KILL after ten seconds.
finish() {
  local id
  id=$(cat "$demo/$1.pid" 2>/dev/null) || return 0
  if ps -o args= -p "$id" 2>/dev/null | grep -qF "$demo"; then
    kill "$id" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$id" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$id" 2>/dev/null || true
  fi
  rm -f "$demo/$1.pid"
}

stop() {
  finish events
  finish tidemark
  "$root/docker/kafka.sh" stop --port "$kafka_port" --dir "$demo/kafka" >/dev/null
  rm -rf "$demo"
}

ready() { "$python" -c "import urllib.request as u; u.urlopen('http://$http/ready', timeout=1)" 2>/dev/null; }

start_tidemark() {
  local binary
  binary=$(cat "$demo/binary")
  launch tidemark "$binary" start --data-dir "$demo/data" --sql "127.0.0.1:$sql_port" --http "$http" --rpc "127.0.0.1:$((sql_port + 2))"
  for _ in $(seq 150); do
    ready && return
    kill -0 "$(cat "$demo/tidemark.pid")" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 "$demo/tidemark.log" >&2
  fail "Tidemark did not start; its log is above (is port $sql_port taken? then: DEMO_SQL_PORT=5566 make demo)"
}

sql() { psql -h 127.0.0.1 -p "$sql_port" -d dev -U root -qX -v ON_ERROR_STOP=1 -v broker="$broker" "$@"; }

case ${1:-start} in
  start) ;;
  stop)
    stop
    echo "the demo is stopped, its data is gone"
    exit ;;
  crash)
    [ -e "$demo/tidemark.pid" ] || fail "the demo does not run: make demo"
    kill -9 "$(cat "$demo/tidemark.pid")" 2>/dev/null || true
    step "Tidemark is killed (kill -9); starting it again"
    start_tidemark
    echo "it answers again"
    exit ;;
  *) fail "run.sh [start | stop | crash]" ;;
esac

step "Looking for what is needed"
"$root/docker/deps.sh"

if [ -n "${TIDEMARK_BINARY:-}" ]; then
  binary=$TIDEMARK_BINARY
else
  step "Building Tidemark (the first time takes about 12 minutes on two cores, afterwards seconds)"
  (cd "$root" && cargo build --release)
  binary=$(cd "$root" && cd "${CARGO_TARGET_DIR:-target}" && pwd)/release/tidemark
fi

trap 'trap - EXIT; echo; step "Stopping Kafka and Tidemark"; stop; exit 130' INT TERM
stop
mkdir -p "$demo"
echo "$binary" >"$demo/binary"
# A failure leaves nothing running, but keeps the logs.
trap 'status=$?; if [ $status -ne 0 ]; then mkdir -p "$cache/demo-logs"; cp "$demo"/*.log "$cache/demo-logs/" 2>/dev/null || true; stop; echo "the logs are in $cache/demo-logs" >&2; fi' EXIT

step "Starting Apache Kafka on $broker"
"$root/docker/kafka.sh" start --port "$kafka_port" --dir "$demo/kafka" >/dev/null
"$python" "$here/demo.py" topics --broker "$broker"

step "Starting Tidemark on 127.0.0.1:$sql_port"
start_tidemark

launch events "$python" "$here/demo.py" events --broker "$broker" --folder "$demo"
for file in "$here"/*.sql; do
  step "psql -f docker/demo/$(basename "$file")"
  sed -n '/^--/d; /./p' "$file" | sed "s/^/    $dim/; s/\$/$plain/"
  sql -f "$file"
done

"$python" "$here/demo.py" show --broker "$broker" --sql "127.0.0.1:$sql_port"

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

The matches as Kafka has them:  docker/kafka.sh read matches --port $kafka_port --dir $demo/kafka
Metrics: http://$http/metrics   Logs: $demo/tidemark.log
${bold}make demo-stop${plain} ends everything and removes its data.
EOF
