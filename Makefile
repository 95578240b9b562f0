# AetherFlow: the two commands are `make run` and `make test`.
CARGO ?= cargo
# Where the public editing traces are; a generated trace takes the place of one that is missing.
TRACES ?= ../shared/data
SOAK_SEEDS ?= 10000
# How often `make soak` kills the server in the middle of a replay, and how long its writers write, in seconds.
SOAK_KILLS ?= 200
SOAK_WRITERS_SECONDS ?= 300
# How often it kills Redis, PostgreSQL and the services on them.
SOAK_STORE_KILLS ?= 50
# What tests use and a machine may lack.
TOOLS := $(abspath $(or $(CARGO_TARGET_DIR),target))/tools
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# Seconds for each target of `make fuzz`, and which targets (all, if none is named).
FUZZ_SECONDS ?= 60
FUZZ ?=
.PHONY: help run test build lint demo soak fuzz
help: ## Prints this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Builds, starts both services on the embedded store, prints the addresses; Ctrl-C ends it
	$(CARGO) run --release --locked -p aetherflow --bin aetherflow -- up

# A test that lacks a privilege, a tool or io_uring prints a line that starts with SKIPPED: and passes, but fails where CI is set.
test: ## Runs every test and says at the end how many were skipped
	.ci/tools.sh $(TOOLS)
	PATH="$$PATH:$(TOOLS)/usr/bin" $(CARGO) test --workspace --locked --no-fail-fast -- --show-output 2>&1 | .ci/tests.sh

build: ## Builds everything in release
	$(CARGO) build --workspace --release --locked

lint: ## Formatting and lints, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

demo: ## Two people edit one text over a 50 ms, 5 % link, on gRPC over Quantum (needs root)
	$(CARGO) build --locked -p aetherflow -p aetherflow-bench --bins
	$${CARGO_TARGET_DIR:-target}/debug/aetherflow-bench demo

soak: ## The long proofs: simulated worlds, kill -9 in replays, random writers, recorded sessions over a lossy link (needs root; hours)
	.ci/tools.sh $(TOOLS)
	QUANTUM_SIM_SEEDS=$(SOAK_SEEDS) $(CARGO) test --release --locked -p quantum-sim --test seeds
	QUANTUM_SYN_FLOOD=1000000 $(CARGO) test --release --locked -p quantum-grpc --test processes syn_flood -- --nocapture
	$(CARGO) build --release --locked -p aetherflow -p aetherflow-bench --bins
	CRASH_KILLS=$(SOAK_KILLS) $(CARGO) test --release --locked -p aetherflow-bench --test crash -- --nocapture
	WRITERS_SECONDS=$(SOAK_WRITERS_SECONDS) $(CARGO) test --release --locked -p aetherflow-bench --test writers -- --nocapture --test-threads 1
	PATH="$$PATH:$(TOOLS)/usr/bin" STORE_KILLS=$(SOAK_STORE_KILLS) $(CARGO) test --release --locked -p aetherflow --test store_servers -- --nocapture --test-threads 1 killed
	HOSTILE_UPDATES=100000 $(CARGO) test --release --locked -p aetherflow --test hostile_updates -- --nocapture
	for trace in friendsforever sveltecomponent; do \
	  file=$(TRACES)/$$trace.json.gz; \
	  [ -e "$$file" ] || file=generate:2,26000,1; \
	  for transport in quantum-grpc tcp-grpc; do for encoding in yjs json; do \
	    echo "== $$file over $$transport in $$encoding"; \
	    $${CARGO_TARGET_DIR:-target}/release/aetherflow-bench demo --trace "$$file" --transport $$transport --encoding $$encoding; \
	  done; done; \
	done

fuzz: ## Fuzzes each parser and a whole connection, FUZZ_SECONDS=60 for each (FUZZ="fuzz_head ..." for some); says where a failing input is
	.ci/fuzz.sh $(FUZZ_SECONDS) $(FUZZ)
