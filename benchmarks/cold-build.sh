#!/usr/bin/env bash
# What the first build costs: builds the server in an empty target folder and prints one JSON line.
#   benchmarks/cold-build.sh [REVISION]      default: the checkout as it is; a revision is built from a worktree of its own
# The crates are fetched before the clock starts. cargo's own report per crate (--timings) is kept beside the line, in the
# cache folder. Processor time depends on the machine and on its neighbours: compare two revisions in one sitting.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
root=$here revision=$(git -C "$here" rev-parse --short HEAD)
scratch=$(mktemp -d)
trap 'git -C "$here" worktree remove --force "$scratch/tree" 2>/dev/null || true; rm -rf "$scratch"' EXIT
if [ $# -gt 0 ]; then
  revision=$(git -C "$here" rev-parse --short "$1")
  git -C "$here" worktree add -q --detach "$scratch/tree" "$revision"
  root=$scratch/tree
fi
cd "$root"
cargo fetch -q --locked
export CARGO_TARGET_DIR=$scratch/target
TIMEFORMAT='%R %U %S'
read -r clock user system < <({ time cargo build -q --release --locked --timings -p tidemark-server >&2; } 2> >(tee /dev/stderr | tail -n 1))
mkdir -p "$cache/cold-build"
cp "$CARGO_TARGET_DIR"/cargo-timings/cargo-timing.html "$cache/cold-build/$revision.html"
cp "$CARGO_TARGET_DIR/release/tidemark" "$scratch/stripped" && strip "$scratch/stripped"
printf '{"revision": "%s", "seconds": %s, "user_seconds": %s, "system_seconds": %s, "crates": %d, "binary_mb": %d, "stripped_mb": %d, "cores": %d}\n' \
  "$revision" "$clock" "$user" "$system" "$(find "$CARGO_TARGET_DIR/release/.fingerprint" -mindepth 1 -maxdepth 1 | wc -l)" \
  $(($(stat -c %s "$CARGO_TARGET_DIR/release/tidemark") / 1000000)) $(($(stat -c %s "$scratch/stripped") / 1000000)) "$(nproc)"
