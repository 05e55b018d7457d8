# What the demo and the cluster's demo share, sourced by their scripts. A demo has the folder $dir for all its data; of what it launches under a NAME the process
# id is in NAME.pid and the output in NAME.log. Each script has a `stop` of its own, after which nothing runs and the folder is gone.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
python=$cache/venv/bin/python
PATH=$PATH:$HOME/.cargo/bin

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'; else bold='' dim='' red='' plain=''; fi
step() { printf '%s==>%s %s%s%s\n' "$dim" "$plain" "$bold" "$*" "$plain"; }
fail() { printf '%s%s%s\n' "$red" "$*" "$plain" >&2; exit 1; }

# Starts a process of its own session: NAME COMMAND... ; its id is kept in NAME.pid, its output is added to NAME.log.
launch() {
  local name=$1
  shift
  setsid nohup "$@" >>"$dir/$name.log" 2>&1 </dev/null &
  echo $! >"$dir/$name.pid"
  # The shell has nothing to say when it is killed.
  disown
}

# The id of what launch started under NAME, if it still belongs to it (ids are reused).
running() {
  local id
  id=$(cat "$dir/$1.pid" 2>/dev/null) || return 1
  ps -ww -o args= -p "$id" 2>/dev/null | grep -qF -- "$dir" && echo "$id"
}

# Ends what launch started under NAME by SIGNAL and returns when it is gone; after ten seconds by KILL.
finish() {
  local id
  if id=$(running "$1"); then
    kill -s "$2" "$id" 2>/dev/null || true
    for _ in $(seq 100); do running "$1" >/dev/null || break; sleep 0.1; done
    kill -9 "$id" 2>/dev/null || true
  fi
  rm -f "$dir/$1.pid"
}

# Refuses a PORT on which another program than WHAT listens, before anything is built or started; what it would answer is not the demo's. The rest is a command
# with which it goes.
free() {
  local port=$1 what=$2
  shift 2
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then fail "port $port ($what) is taken by another program; end it, or choose another port: $*"; fi
}

# Sets $binary: the server that TIDEMARK_BINARY names, else the one that is built here.
find_binary() {
  local target
  if [ -n "${TIDEMARK_BINARY:-}" ]; then
    binary=$(realpath "$TIDEMARK_BINARY")
    return
  fi
  target=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")
  binary=$target/release/tidemark
  if [ -e "$binary" ]; then step "Building what has changed"; else step "Building Tidemark: a quarter to half an hour on two cores the first time, much less from then on"; fi
  (cd "$root" && cargo build --release)
}

# From here on Ctrl-C ends everything; a second one does not interrupt that.
end_on_interrupt() {
  trap 'trap "" INT TERM HUP; trap - EXIT; { echo; step "Cleaning up"; } || true; stop; exit 130' INT TERM HUP
}

# From here on a failure leaves nothing running either, but keeps the logs.
end_on_failure() {
  trap 'ended $?' EXIT
}

ended() {
  [ "$1" -ne 0 ] || return 0
  mkdir -p "$dir-logs"
  cp "$dir"/*.log "$dir"/kafka/*.log "$dir"/s3/*.log "$dir-logs/" 2>/dev/null || true
  stop
  echo "the logs are in $dir-logs" >&2
}

# Prints a file of SQL as what psql is given next.
show_sql() {
  step "psql -f docker/demo/$(basename "$1")"
  sed -n '/^-- (psql/d; /./p' "$1" | sed "s/^/    $dim/; s/\$/$plain/"
}
