#!/usr/bin/env bash
# The benchmarks: one JSON line a measurement on stdout, everything else on stderr. README.md beside this file explains what each one measures.
#
#   run.sh nexmark [--queries q0,q3] [--events N] [--source generator|kafka] [--workers N] [--sink blackhole|kafka] [--check] [--perf]
#   run.sh kafka-to-kafka [--queries q0,q2,q20,matches] [--events N] [--workers N]
#   run.sh latency [--rate N] [--seconds N] [--workers N]
#   run.sh state [--keys N,N] [--workers N]
#   run.sh serve [--queries lookup,lookup-in,lookup-any,view,prefix,index,total,groups,some,insert,update] [--keys N] [--clients N] [--seconds N]
#   run.sh isolation [--heavy SECONDS] [--clients N] [--seconds N]
#   run.sh cluster [--queries q0,q3] [--events N] [--source generator|kafka] [--workers N] [--nodes N]
#   run.sh failover [--keys N,N] [--nodes N] [--events kill-follower,kill-leader]
#   run.sh fill [--events N]        the Nexmark topics only, for other engines to read
#   run.sh flink fill|query ...     Apache Flink's runner, whose path is in FLINK_PEER, with the same arguments as there
#   run.sh kafka stop|wipe          the broker that the benchmarks started: stops it | and deletes its topics
#   run.sh COMMAND --help
#
# Build the server first (cargo build --release). Data lives in $TIDEMARK_CACHE (default ~/.cache/tidemark).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
venv=$cache/venv-benchmarks

case ${1:-} in
  '' | -h | --help | help) sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; exit 0 ;;
  flink)
    shift
    exec "${FLINK_PEER:?set it to the path of the Flink runner}" "$@" ;;
  kafka) exec "$here/../docker/kafka.sh" "${2:?stop or wipe}" --port "${BENCH_KAFKA_PORT:-29092}" --dir "${BENCH_KAFKA_DIR:-$cache/bench-kafka}" ;;
esac

if ! cmp -s "$here/requirements.txt" "$venv/installed" || ! "$venv/bin/python" -c '' 2>/dev/null; then
  "$here/../docker/deps.sh" >&2
  echo "installing Python packages into $venv" >&2
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt" >&2
  cp "$here/requirements.txt" "$venv/installed"
fi
PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 exec "$venv/bin/python" -m driver "$@"
