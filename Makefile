# AetherFlow: the two commands are `make run` and `make test`.
CARGO ?= cargo

.PHONY: build run test lint demo
build: ## Builds everything in release
	$(CARGO) build --workspace --release --locked

run: ## Builds, starts both services on the embedded default, prints the URLs
	$(CARGO) run --release --locked -p aetherflow --bin aetherflow -- up

# The virtual world of quantum-sim drives the protocol endpoint, which is not built yet: only the link nodes are tested.
test: ## Runs every test
	$(CARGO) test --workspace --locked --exclude quantum-sim
	$(CARGO) test --locked -p quantum-sim --lib

lint: ## Formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked

demo: ## Two writers' edits over a 50 ms, 5 % link (over TCP until Quantum's endpoint runs)
	$(CARGO) build --workspace --bins --locked
	target/debug/aetherflow-bench demo --transport tcp-grpc
