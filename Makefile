# Each target does its own set-up. Needed: make, and any Node (20 or later) with npm. The Node that runs TokenMan
# and its tests comes with the dependencies.

NODE := node_modules/.bin/node
BIN := bin/tokenman
# npm's own record of what is installed, written at the end of a successful install.
SETUP := node_modules/.package-lock.json
# Passed on by run, test, bench and soak: make run ARGS="--plugins none".
ARGS ?=
TESTS ?= test/**/*.test.ts
# Test files at a time: they wait for processes and sockets half of their time.
JOBS ?= 2
# Files are compiled once a run, not once in each process that a test starts. Begun anew, for it only grows.
COMPILED := $(CURDIR)/.cache/node

.PHONY: build run test lint bench bench-ledger bench-savings soak sdk example-config clean distclean docker-build docker-run
.DEFAULT_GOAL := build

$(SETUP): package-lock.json
	npm ci --loglevel=error
	@touch $@

build: $(SETUP)
	@$(NODE) scripts/build.ts

run: build
	@$(BIN) start --foreground $(ARGS)

# Tests of the program as users get it need it built. A test that hangs fails after two minutes.
test: build
	@rm -rf $(COMPILED)
	@NODE_COMPILE_CACHE=$(COMPILED) $(NODE) --test --test-timeout=120000 --test-concurrency=$(JOBS) $(ARGS) "$(TESTS)"

lint: $(SETUP)
	@$(NODE) scripts/lint.ts

bench: build
	@$(NODE) scripts/bench/main.ts $(ARGS)

# Five million requests in the ledger, made first: takes some minutes and 3 GB of the temporary folder.
bench-ledger: build
	@$(NODE) scripts/bench/ledger.ts $(ARGS)

# Recorded agent sessions: make bench-savings SESSION=FILE.jsonl
bench-savings: build
	@$(NODE) scripts/bench/savings.ts $(ARGS) $(SESSION)

soak: build
	@$(NODE) scripts/soak/main.ts $(ARGS)

# The publishable @tokenman/plugin-sdk, in plugin-sdk/dist.
sdk: $(SETUP)
	@$(NODE) scripts/build-sdk.ts

example-config: $(SETUP)
	@$(NODE) scripts/generate-config.ts

clean:
	rm -rf bin dist plugin-sdk/dist coverage .cache

distclean: clean
	rm -rf node_modules

docker-build:
	docker build --tag tokenman:latest .

docker-run:
	docker run --rm -it -p 127.0.0.1:7677:7677 -p 127.0.0.1:7678:7678 -v tokenman-data:/data tokenman:latest
