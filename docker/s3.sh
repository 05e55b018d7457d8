#!/usr/bin/env bash
# A real S3 server without Docker, for tests and the cluster's demo: versitygw, which keeps the objects of a bucket as files of a folder.
#
#   docker/s3.sh start                 builds it once (80 s), makes the bucket, starts, returns when the server answers
#   docker/s3.sh stop | status | wipe  stops it | says whether it runs (exit code 3: it does not) | stops it and deletes its data
#   docker/s3.sh env                   prints the AWS_* settings for a client, one `NAME=value` a line
#   docker/s3.sh build                 builds it only, and prints the program's path
#
# Options, anywhere: --port P (default 7070), --dir DIR (default CACHE/s3-data-P), --bucket NAME (default tidemark). Instances with different ports live side
# by side. Every command may be repeated. Environment: TIDEMARK_CACHE (default ~/.cache/tidemark). Objects lie in DIR/data/BUCKET, where a test can look at
# them, take them away and put them back.
set -euo pipefail
version=v1.8.0 go_version=1.25.0
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
port=7070 dir='' bucket=tidemark words=()
while [ $# -gt 0 ]; do
  case $1 in
    --port) port=${2:?--port needs a number}; shift 2 ;;
    --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
    --bucket) bucket=${2:?--bucket needs a name}; shift 2 ;;
    -h | --help) sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) words+=("$1"); shift ;;
  esac
done
set -- ${words[@]+"${words[@]}"}
command=${1:-help}
dir=${dir:-$cache/s3-data-$port}
bin=$cache/versitygw-$version/versitygw
access=tidemark secret=tidemark-secret

die() { echo "s3.sh: $*" >&2; exit 1; }
# shellcheck source=service.sh
. "$(dirname "${BASH_SOURCE[0]}")/service.sh"
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# A Go that is new enough. One from 1.21 on fetches what a module asks for by itself; an older one (Debian 12 has 1.19) gets it as the module that it is.
go_program() {
  local go found toolchain
  go=$(command -v go || { [ -x /usr/local/go/bin/go ] && echo /usr/local/go/bin/go; }) || die "go is missing (Debian: apt-get install golang-go)"
  found=$("$go" env GOVERSION | sed 's/^go//')
  if at_least 1.21 "$found"; then
    echo "$go"
    return
  fi
  toolchain=golang.org/toolchain@v0.0.1-go$go_version.$("$go" env GOOS)-$("$go" env GOARCH)
  # Outside of any module, and into our own cache: nobody else is to find such a module among theirs.
  (cd "$cache" && GOPATH=$cache/go GOFLAGS=-modcacherw GONOSUMDB=golang.org/toolchain "$go" mod download "$toolchain") >&2 || die "cannot fetch Go $go_version"
  toolchain=$cache/go/pkg/mod/$toolchain
  chmod +x "$toolchain"/bin/* "$toolchain"/pkg/tool/*/*
  echo "$toolchain/bin/go"
}

build() {
  [ ! -x "$bin" ] || return 0
  mkdir -p "$(dirname "$bin")"
  exec 8>"$(dirname "$bin")/lock"
  flock 8
  if [ ! -x "$bin" ]; then
    local go
    go=$(go_program)
    echo "building versitygw $version" >&2
    GOBIN=$(dirname "$bin") GOTOOLCHAIN=auto GOFLAGS=-modcacherw GOPATH=$cache/go "$go" install "github.com/versity/versitygw/cmd/versitygw@$version" >&2
  fi
  exec 8>&-
}

pid() { service_pid "$dir/data"; }
answers() { (exec 7<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

start() {
  build
  mkdir -p "$dir/data/$bucket" "$dir/meta"
  dir=$(cd "$dir" && pwd)
  exec 9>"$dir/lock"
  flock 9
  if pid >/dev/null; then
    echo "S3 runs on 127.0.0.1:$port (process $(pid))"
    return
  fi
  # A session of its own: Ctrl-C in the terminal that called us is not meant for the server. It must not inherit our lock. Without the sidecar (or extended
  # attributes) it would ignore If-None-Match: what is created if absent would be overwritten.
  ROOT_ACCESS_KEY=$access ROOT_SECRET_KEY=$secret setsid nohup "$bin" --port "127.0.0.1:$port" posix --sidecar "$dir/meta" "$dir/data" >>"$dir/s3.log" 2>&1 </dev/null 9>&- &
  echo $! >"$dir/pid"
  why() { echo "see $dir/s3.log; $(tail -n 5 "$dir/s3.log")"; }
  service_await "the S3 server" 30 answers why
  echo "S3 runs on 127.0.0.1:$port (process $(cat "$dir/pid"), bucket $bucket, log $dir/s3.log)"
}

stop() {
  [ -d "$dir" ] || return 0
  dir=$(cd "$dir" && pwd)
  service_stop "S3 on 127.0.0.1:$port" "$(pid || true)" 5
}

case $command in
  start) start ;;
  stop) stop ;;
  status)
    if pid >/dev/null; then echo "S3 runs on 127.0.0.1:$port (process $(pid), data in $dir)"; else echo "S3 does not run on 127.0.0.1:$port"; exit 3; fi ;;
  wipe) stop; rm -rf "$dir" ;;
  env) printf '%s\n' "AWS_ACCESS_KEY_ID=$access" "AWS_SECRET_ACCESS_KEY=$secret" "AWS_ENDPOINT=http://127.0.0.1:$port" AWS_REGION=us-east-1 ;;
  build) build; echo "$bin" ;;
  help) exec "${BASH_SOURCE[0]}" --help ;;
  *) die "unknown command '$command' (start, stop, status, wipe, env, build)" ;;
esac
