#!/usr/bin/env bash
# Runs a command with a Kafka broker of its own, named to it by TIDEMARK_TEST_KAFKA, and removes the broker afterwards; exits as the command does.
#   docker/with-kafka.sh cargo test --release --workspace
# The topics that the manual's and README's SQL examples mention exist in it. KAFKA_TEST_PORT (19192) and the port after it must be free.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
port=${KAFKA_TEST_PORT:-19192}
kafka() { "$here/kafka.sh" "$@" --port "$port"; }
trap 'kafka wipe' EXIT
kafka wipe
kafka start
for topic in $(grep -ohE "topic = '[A-Za-z0-9_.-]+'" "$here"/../README.md "$here"/../docs/*.md 2>/dev/null | cut -d"'" -f2 | sort -u); do
  kafka topic "$topic" 2
done
TIDEMARK_TEST_KAFKA=127.0.0.1:$port "$@"
