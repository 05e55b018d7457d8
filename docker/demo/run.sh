#!/usr/bin/env bash
# The demo: real Kafka, Tidemark, and two stories told live in the terminal. `make demo` calls it, `make demo-stop` calls `run.sh stop`;
# `run.sh crash` kills Tidemark with kill -9 and starts it again.
# Every run starts afresh. Afterwards Kafka, Tidemark and a trickle of events keep running, to be explored with psql; Ctrl-C before that ends everything.
# TIDEMARK_BINARY=FILE shows that server instead of building one; DEMO_SECONDS is how long matches are shown (15).
# All data lives in $TIDEMARK_CACHE/demo (default ~/.cache/tidemark/demo). Ports: DEMO_KAFKA_PORT (19092; Kafka's controller is the next one),
# DEMO_SQL_PORT (4566; HTTP and RPC are the next two). `stop` and `crash` know the ports that the running demo was started with.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
demo=$cache/demo
kafka_port=${DEMO_KAFKA_PORT:-19092} sql_port=${DEMO_SQL_PORT:-4566}
if [ "${1:-start}" != start ] && [ -e "$demo/ports" ]; then read -r kafka_port sql_port <"$demo/ports"; fi
broker=127.0.0.1:$kafka_port http=127.0.0.1:$((sql_port + 1))
python=$cache/venv/bin/python
PATH=$PATH:$HOME/.cargo/bin

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'; else bold='' dim='' red='' plain=''; fi
step() { printf '%s==>%s %s%s%s\n' "$dim" "$plain" "$bold" "$*" "$plain"; }
fail() { printf '%s%s%s\n' "$red" "$*" "$plain" >&2; exit 1; }

# Starts a process of its own session: NAME COMMAND... ; its id is kept in NAME.pid, its output is added to NAME.log.
launch() {
  local name=$1
  shift
  setsid nohup "$@" >>"$demo/$name.log" 2>&1 </dev/null &
  echo $! >"$demo/$name.pid"
}

# The id of what launch started under NAME, if it still belongs to it (ids are reused).
running() {
  local id
  id=$(cat "$demo/$1.pid" 2>/dev/null) || return 1
  ps -ww -o args= -p "$id" 2>/dev/null | grep -qF -- "$demo" && echo "$id"
}

# Ends what launch started under NAME by SIGNAL and returns when it is gone; after ten seconds by KILL.
finish() {
  local id
  if id=$(running "$1"); then
    kill -s "$2" "$id" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$id" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$id" 2>/dev/null || true
  fi
  rm -f "$demo/$1.pid"
}

stop() {
  finish events TERM
  finish tidemark TERM
  "$root/docker/kafka.sh" stop --port "$kafka_port" --dir "$demo/kafka" >/dev/null
  rm -rf "$demo"
}

ready() { "$python" -c "import urllib.request as u; u.urlopen('http://$http/ready', timeout=1)" 2>/dev/null; }

# Refuses a port on which another program listens, before anything is built or started; what it would answer is not the demo's.
free() {
  local port=$1 what=$2 remedy=$3
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then fail "port $port ($what) is taken by another program; end it, or choose another port: $remedy make demo"; fi
}

# Whether the server's own process lives.
alive() { kill -0 "$(cat "$demo/tidemark.pid")" 2>/dev/null; }

start_tidemark() {
  local binary
  binary=$(cat "$demo/binary")
  launch tidemark "$binary" start --data-dir "$demo/data" --sql "127.0.0.1:$sql_port" --http "$http" --rpc "127.0.0.1:$((sql_port + 2))"
  for _ in $(seq 300); do
    if ready && alive; then return; fi
    alive || break
    sleep 0.1
  done
  tail -n 20 "$demo/tidemark.log" >&2
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
    [ -e "$demo/tidemark.pid" ] || fail "the demo does not run: make demo"
    finish tidemark KILL
    step "Tidemark is killed (kill -9); starting it again"
    start_tidemark
    echo "it answers again, from its log and its last checkpoint"
    exit ;;
  *) fail "run.sh [start | stop | crash]" ;;
esac

# Ctrl-C ends everything; a second one does not interrupt that.
trap 'trap "" INT TERM HUP; trap - EXIT; { echo; step "Cleaning up"; } || true; stop; exit 130' INT TERM HUP

[ ! -e "$demo" ] || step "Ending the demo that is there"
stop
for port in "$kafka_port" $((kafka_port + 1)); do free "$port" Kafka DEMO_KAFKA_PORT=29092; done
for port in "$sql_port" $((sql_port + 1)) $((sql_port + 2)); do free "$port" Tidemark DEMO_SQL_PORT=5566; done

step "Looking for what is needed"
"$root/docker/deps.sh"

if [ -n "${TIDEMARK_BINARY:-}" ]; then
  binary=$(realpath "$TIDEMARK_BINARY")
else
  target=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")
  binary=$target/release/tidemark
  if [ -e "$binary" ]; then step "Building what has changed"; else step "Building Tidemark: a quarter to half an hour on two cores the first time, much less from then on"; fi
  (cd "$root" && cargo build --release)
fi

# A failure leaves nothing running either, but keeps the logs.
trap 'status=$?; if [ $status -ne 0 ]; then mkdir -p "$cache/demo-logs"; cp "$demo"/*.log "$demo"/kafka/*.log "$cache/demo-logs/" 2>/dev/null || true; stop; echo "the logs are in $cache/demo-logs" >&2; fi' EXIT
mkdir -p "$demo"
echo "$binary" >"$demo/binary"
echo "$kafka_port $sql_port" >"$demo/ports"

step "Starting Apache Kafka on $broker"
"$root/docker/kafka.sh" start --port "$kafka_port" --dir "$demo/kafka" >/dev/null
"$python" "$here/demo.py" topics --broker "$broker"

step "Starting Tidemark on 127.0.0.1:$sql_port"
start_tidemark

launch events "$python" "$here/demo.py" events --broker "$broker" --folder "$demo"
for file in "$here"/*.sql; do
  step "psql -f docker/demo/$(basename "$file")"
  sed -n '/^-- (psql/d; /./p' "$file" | sed "s/^/    $dim/; s/\$/$plain/"
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

The matches as Kafka has them:  docker/kafka.sh read matches --port $kafka_port --dir $demo/kafka
Status page: http://$http/   Metrics: http://$http/metrics   Log: $demo/tidemark.log
${bold}make demo-stop${plain} ends everything and removes its data.
EOF
