# make demo       install what is missing, build, start Kafka and Tidemark, show both stories live   (make demo-stop ends and cleans up)
# make cluster    the same with three nodes: each of them is killed while events flow, and at the end it is counted what arrived   (make cluster-stop ends and cleans up)
# make test       everything that can fail: formatting, unit, property, SQL and end-to-end tests      (.ci/run calls it)
# make bench      Nexmark into a blackhole sink                                                       (options: make bench ARGS='--queries q0,q3')
# make soak       constant keys, steady work: memory and disk must stay flat                           (make soak MINUTES=30)
# make differential  random SQL against PostgreSQL 15: the same answers, and what is not the same made small (make differential SECONDS=3600)
# make simulate   a whole server in one thread from a seed: kills, power losses, a store and a broker that fail (make simulate SEEDS=10000; ARGS='--seed 7 --trace' replays one)
# make build      the server, optimised: $(TARGET)/release/tidemark
# make lint       clippy, warnings are errors
# make clean-cache  removes the cache folder: Kafka's jars, the Python environment, data of the demos and of tests
.PHONY: build simulate test test-rust test-e2e test-differential differential soak lint bench demo demo-stop cluster cluster-stop deps clean-cache
.DEFAULT_GOAL := build
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin
CACHE := $(or $(TIDEMARK_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tidemark)
TARGET := $(or $(CARGO_TARGET_DIR),target)
PYTEST := $(CACHE)/venv/bin/python -m pytest

deps:
	@docker/deps.sh test

build:
	@docker/deps.sh build
	cargo build --release

# The Rust tests, the end-to-end tests and the comparison with PostgreSQL all run, whatever the first of them says: one run tells everything.
test: deps
	cargo fmt --all --check
	cargo build --release --workspace
	@status=0; $(MAKE) --no-print-directory test-rust || status=1; $(MAKE) --no-print-directory test-e2e || status=1; \
	$(MAKE) --no-print-directory test-differential || status=1; exit $$status

test-rust:
	TIDEMARK_TEST_KAFKA_REQUIRED=1 docker/with-kafka.sh cargo test --release --workspace --no-fail-fast $(ARGS)

test-e2e:
	cd src/sim/e2e && CARGO_TARGET_DIR="$(abspath $(TARGET))" $(PYTEST) -p no:cacheprovider $(ARGS)

test-differential:
	cd src/sim && CARGO_TARGET_DIR="$(abspath $(TARGET))" $(PYTEST) -p no:cacheprovider differential

SECONDS ?= 600
differential: deps build
	cd src/sim && CARGO_TARGET_DIR="$(abspath $(TARGET))" $(CACHE)/venv/bin/python -m differential --seconds $(SECONDS) $(ARGS)

SEEDS ?= 1000
simulate:
	@docker/deps.sh build
	cargo build --release -p tidemark-sim --bin simulate
	$(TARGET)/release/simulate --count $(SEEDS) --jobs 2 $(ARGS)

MINUTES ?= 10
soak: deps build
	cd src/sim/e2e && CARGO_TARGET_DIR="$(abspath $(TARGET))" $(CACHE)/venv/bin/python soak.py --minutes $(MINUTES) $(ARGS)

lint:
	cargo clippy --release --workspace --all-targets -- -D warnings

bench: build
	benchmarks/run.sh nexmark $(ARGS)

demo:
	@docker/demo/run.sh

demo-stop:
	@docker/demo/run.sh stop

cluster:
	@docker/demo/cluster.sh

cluster-stop:
	@docker/demo/cluster.sh stop

clean-cache: demo-stop cluster-stop
	rm -rf "$(CACHE)"
