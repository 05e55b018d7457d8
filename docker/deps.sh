#!/usr/bin/env bash
# Installs what building, testing and the demo need and this machine lacks; changes nothing where all is there. Prints what was found.
#
#   docker/deps.sh          what building and the demo need
#   docker/deps.sh build    only what `cargo build` needs
#   docker/deps.sh cluster  what the demo needs, and the S3 server, which is built with Go
#   docker/deps.sh test     everything: also what tests need beside those, and the PostgreSQL 15 that answers are compared with
#
# Debian and Ubuntu packages come by apt-get (as root, or through sudo); elsewhere the script says what is missing. Rust itself comes from rustup, which the
# script leaves to you. Python packages go into a virtual environment in the cache folder (TIDEMARK_CACHE, default ~/.cache/tidemark), never into the system.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
rust_version=1.95
what=${1:-all}
case $what in cluster | test) s3=yes ;; *) s3=no ;; esac

die() { printf 'deps.sh: %s\n' "$@" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# Which Debian packages are missing, judged by what they are for and not by their names, so that other installations count too.
missing=()
need() { local package=$1; shift; "$@" >/dev/null 2>&1 || missing+=("$package"); }
need g++ have c++
need make have make
need pkg-config have pkg-config
need libssl-dev pkg-config --exists openssl
[ "$what" != test ] || need iproute2 have ip
[ "$what" != test ] || need openssl sh -c 'command -v openssl'
need protobuf-compiler have protoc
need zlib1g-dev pkg-config --exists zlib
[ $s3 = no ] || need golang-go sh -c 'command -v go || command -v /usr/local/go/bin/go'
[ "$what" != test ] || need postgresql-15 sh -c 'test -x /usr/lib/postgresql/15/bin/initdb || test -x /usr/pgsql-15/bin/initdb'
if [ "$what" != build ]; then
  need default-jre-headless have java
  [ "$what" != test ] || need default-jdk-headless sh -c 'java --list-modules | grep -q jdk.compiler'
  need maven have mvn
  need postgresql-client have psql
  need procps have ps
  need util-linux have flock
  need python3 have python3
  need python3-venv python3 -c 'import ensurepip, venv'
fi

if [ ${#missing[@]} -gt 0 ]; then
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  if ! have apt-get || { [ ${#root[@]} -gt 0 ] && ! have sudo; }; then
    die "please install (names of Debian's packages): ${missing[*]}" "apt-get needs root or sudo, and one of them is not here"
  fi
  echo "installing ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive ${root[@]+"${root[@]}"} apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive ${root[@]+"${root[@]}"} apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH=$HOME/.cargo/bin:$PATH; fi
have cargo || die "Rust is missing, and no Debian package is new enough: install rustup from https://rustup.rs, then \`rustup toolchain install $rust_version\`"
found=$(cargo --version | cut -d' ' -f2)
at_least "$rust_version" "$found" || die "Rust $found is too old: Tidemark needs $rust_version or newer (\`rustup update\`)"

if [ "$what" != build ]; then
  java_version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p;1q')
  at_least 17 "${java_version:-0}" || die "Java ${java_version:-?} is too old: Apache Kafka needs 17 or newer"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "$(python3 --version) is too old: the demo and the tests need 3.10 or newer"
  requirements=$here/../src/sim/e2e/requirements.txt
  if ! cmp -s "$requirements" "$cache/venv/installed" || ! "$cache/venv/bin/python" -c '' 2>/dev/null; then
    echo "installing Python packages into $cache/venv"
    mkdir -p "$cache"
    python3 -m venv --clear "$cache/venv"
    "$cache/venv/bin/pip" install -q --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$cache/venv/installed"
  fi
  [ $s3 = no ] || echo "S3 server: $("$here/s3.sh" build)"
  echo "found: cargo $found, java $java_version, $(mvn --version 2>/dev/null | sed -n '1s/\x1b\[[0-9;]*m//gp'), $(psql --version), $("$cache/venv/bin/python" --version)"
else
  echo "found: cargo $found"
fi
