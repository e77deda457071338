# The two that matter: `make run` and `make test`. `make help` lists the rest.

SHELL := /bin/bash
# pipefail: a suite that fails must not be hidden by the `tee` behind it.
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CARGO_TARGET_DIR ?= $(CURDIR)/target
export TIDEWIRE_REPORTS := $(CURDIR)/.work/reports
TIDEWIRE := $(CARGO_TARGET_DIR)/release/tidewire

.PHONY: help run release test test-deps test-cargo test-compat conformance tally \
	ci lint fmt clippy deny scripts docs fuzz-smoke faults soak soak-cluster soak-load bench bench-quick

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- run

run: release ## Build and serve on 127.0.0.1:6001 with the built-in app; ARGS="--config x.json" for more
	@exec '$(TIDEWIRE)' serve $(ARGS)

release: ## Build target/release/tidewire
	cargo build --release --locked --package tidewire

# ---- test

# Every step runs, whatever became of the one before; the line that tools/tally ends with is read by machines.
test: test-deps ## Install what tests need, run everything, end with the counts
	@rm -rf '$(TIDEWIRE_REPORTS)'; mkdir -p '$(TIDEWIRE_REPORTS)'; \
	cargo=0; compat=0; conformance=0; \
	$(MAKE) test-cargo || cargo=$$?; \
	$(MAKE) test-compat || compat=$$?; \
	$(MAKE) conformance || conformance=$$?; \
	tools/tally cargo=$$cargo compat=$$compat conformance=$$conformance

# Packages of Debian only; each suite of compat-tests installs its own from its lock file.
test-deps:
	@tools/install-debian-packages

test-cargo: ## Unit and integration tests of the workspace
	@mkdir -p '$(TIDEWIRE_REPORTS)'
	cargo test --workspace --locked --no-fail-fast 2>&1 | tee '$(TIDEWIRE_REPORTS)/cargo.txt'

test-compat: release ## Real clients, SDKs and proxies against the binary; SUITES="node python" for some
	TIDEWIRE_BIN='$(TIDEWIRE)' compat-tests/run $(SUITES)

conformance: ## Table of the protocol checklist, from the reports of the last test run
	tools/conformance

tally: ## Counts of the last test run
	@tools/tally

# ---- lint

ci: ## What CI runs: lint, a short fuzz, then `make test`
	@$(MAKE) test-deps
	@$(MAKE) lint
	@$(MAKE) fuzz-smoke
	@$(MAKE) test

lint: fmt clippy deny scripts docs ## Formatting, clippy, dependencies, shell scripts, documents

fmt:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check

clippy:
	cargo clippy --workspace --all-targets --locked -- -D warnings

# Without the advisory database, see deny.toml.
deny:
	@tools/install-cargo-deny
	.work/tools/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources

scripts:
	shellcheck .ci/run compat-tests/run compat-tests/*/run fuzz/smoke tools/install-cargo-deny tools/install-debian-packages

docs:
	tools/settings-table --check
	tools/check-docs

fuzz-smoke: ## Fuzz every parser for 20 s (SECONDS_EACH), on the stable toolchain
	fuzz/smoke $(or $(SECONDS_EACH),20)

# ---- break

FAULTS = cargo run --release --locked --package tidewire-faults -- --server-bin '$(TIDEWIRE)'

faults: release ## Break a server, and a cluster of three, in every way they must stand, in full size: about an hour
	$(FAULTS) all $(ARGS)

soak: release ## Millions of checked deliveries with faults all the while: about fifteen minutes
	$(FAULTS) soak $(ARGS)

soak-cluster: release ## Three nodes on one Redis with faults all the while, every delivery checked: about ten minutes
	$(FAULTS) cluster-soak $(ARGS)

soak-load: release ## Three nodes on one Redis and 9,000 clients without faults, every delivery counted: fifteen minutes
	cargo run --release --locked --package tidewire-bench -- soak --server-bin '$(TIDEWIRE)' $(ARGS)

# ---- measure

BENCH = cargo run --release --locked --package tidewire-bench -- suite --server-bin '$(TIDEWIRE)'

bench: release ## The benchmarks, about twenty minutes on an idle machine; the table is kept in BENCHMARKS.md
	$(BENCH) --report $(ARGS)

bench-quick: release ## The same with fewer connections and rounds, about four minutes; nothing is kept
	$(BENCH) --quick $(ARGS)
