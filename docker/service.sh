# What the scripts of servers share, sourced by them. A server has the folder $dir: the file `pid`, and a lock against two starts at once.

# The process id of the server if it runs. $1: a part of its command line that no other server has, because process ids are reused.
service_pid() {
  local id
  id=$(cat "$dir/pid" 2>/dev/null) || return 1
  ps -ww -o args= -p "$id" 2>/dev/null | grep -qF -- "$1" && echo "$id"
}

# Waits for a server that is starting. $1: its name, $2: seconds, $3: a command that is true when it is there, $4: one that prints why it ended.
service_await() {
  local name=$1 seconds=$2 is_there=$3 why=$4
  for _ in $(seq $((seconds * 10))); do
    ! "$is_there" || return 0
    kill -0 "$(cat "$dir/pid")" 2>/dev/null || die "$name ended while starting: $("$why")"
    sleep 0.1
  done
  "$is_there" || die "$name did not start in $seconds s: $("$why")"
}

# Stops the server if it runs. $1: its name and address, $2: its process id, or nothing, $3: the seconds that it gets to end by itself.
service_stop() {
  if [ -n "$2" ]; then
    kill "$2"
    for _ in $(seq $(($3 * 10))); do kill -0 "$2" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$2" 2>/dev/null || true
    echo "$1 is stopped"
  fi
  rm -f "$dir/pid"
}
