# Start with `make run` and `make test`. Each target installs what it needs into .tools the first time.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL: # the steps share cargo's target directory and two cores
.DELETE_ON_ERROR:

ENVOY_VERSION := 1.40.0
PINNED_ENVOY := .tools/envoy-$(ENVOY_VERSION)
# Another Envoy: make run ENVOY=/path/to/envoy
ENVOY ?= $(PINNED_ENVOY)
# The oldest supported Envoy. Tests of what differs between versions run on both.
OLDEST_ENVOY_VERSION := 1.36.2
OLDEST_ENVOY := .tools/envoy-$(OLDEST_ENVOY_VERSION)
# One of each minor version in between, for `make check`.
MIDDLE_ENVOY_VERSIONS := 1.37.0 1.38.2 1.39.3
OTHER_ENVOYS := $(OLDEST_ENVOY) $(addprefix .tools/envoy-,$(MIDDLE_ENVOY_VERSIONS))
EVERY_ENVOY := $(OTHER_ENVOYS) $(ENVOY)
# A plain nginx, for the tests of examples/nginx without the module.
PLAIN_NGINX := .tools/nginx
WASM_OPT := .tools/npm/node_modules/.bin/wasm-opt
# Runs tests in Node.
WASM_RUNNER := .tools/bin/wasm-bindgen-test-runner
# A server and a client of other authors, between which `vkey mcp` is tested.
MCP_SERVER := .tools/mcp/node_modules/@modelcontextprotocol/server-everything/dist/index.js
MCP_CLIENT := .tools/venv-mcp
# More of both, and the conformance suites: what the gate for MCP is tested with.
MCP_PEERS := .tools/mcp-peers
MCP_CLIENT_1 := .tools/venv-mcp-1
# Writes the JavaScript of a module, and TypeScript for the tests of the package.
WASM_BINDGEN := .tools/bin/wasm-bindgen-cli
LIMITADOR := .tools/bin/vkey-limitador
CHECKOV := .tools/checkov
TYPESCRIPT := .tools/npm-js
# Drives Chromium, and checks accessibility.
PAGE_TOOLS := .tools/npm-page
# Check files for Kubernetes.
DEPLOY_TOOLS := .tools/deploy
# Check dependencies, and the lists of them.
RELEASE_TOOLS := .tools/release
# Client libraries of other authors, which send requests to the gate.
CLIENTS := .tools/venv-clients

# The results are where the documentation says, whatever the configuration of cargo.
export CARGO_TARGET_DIR := $(CURDIR)/target
export ENVOY

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: rust $(WASM_OPT) $(WASM_RUNNER) $(ENVOY) $(OLDEST_ENVOY) $(PLAIN_NGINX) $(MCP_SERVER) $(MCP_CLIENT)/installed $(MCP_PEERS)/installed $(MCP_CLIENT_1)/installed $(CLIENTS)/installed $(WASM_BINDGEN) $(TYPESCRIPT)/installed $(PAGE_TOOLS)/installed $(DEPLOY_TOOLS)/installed $(RELEASE_TOOLS)/installed ## Install all tools that the other targets need (each target also installs its own)

.PHONY: build
build: module js ## Build the module target/vkey.wasm (for nginx: target/vkey-nginx.wasm) and the command target/release/vkey, which contains it and the npm package (POLICY=PATH: another upstream-TLS policy)
	cargo build --locked --release

.PHONY: run
run: build $(ENVOY) ## Start Envoy with envoy.yaml and print a key to try
	@tools/setup.sh curl
	@tools/run.sh

.PHONY: demo
demo: ## Send requests to the gate that `make run` has started in another terminal, then show a budget of two Envoys
	@tools/demo.sh
	@tools/demo-budgets.sh

.PHONY: demo-budgets
demo-budgets: build $(ENVOY) ## Show two Envoys that share one budget, and kill one of them
	@tools/setup.sh curl
	@tools/demo-budgets.sh

# The number of cases of each property test. Other targets have proptest's default, 256.
check check-rest: export PROPTEST_CASES ?= 1000

# The environment of the tests.
TEST_ENV := VKEY_TEST_ENVOY=$(abspath $(ENVOY)) VKEY_TEST_ENVOYS=$(abspath $(OLDEST_ENVOY)):$(abspath $(ENVOY)) \
	VKEY_TEST_NGINX=$(CURDIR)/$(PLAIN_NGINX) \
	VKEY_TEST_WASM=$(CURDIR)/target/vkey.wasm VKEY_TEST_WASM_NGINX=$(CURDIR)/target/vkey-nginx.wasm \
	VKEY_TEST_WASM_FAULTS=$(CURDIR)/target/vkey-faults.wasm VKEY_TEST_WASM_SKIP=$(CURDIR)/target/vkey-skip.wasm \
	VKEY_TEST_MCP_SERVER=$(CURDIR)/$(MCP_SERVER) VKEY_TEST_MCP_CLIENT=$(CURDIR)/$(MCP_CLIENT)/bin/python \
	VKEY_TEST_MCP_PEERS=$(CURDIR)/$(MCP_PEERS)/package.json VKEY_TEST_MCP_CLIENT_1=$(CURDIR)/$(MCP_CLIENT_1)/bin/python \
	VKEY_TEST_CLIENTS=$(CURDIR)/$(CLIENTS)/bin/python VKEY_TEST_COMMAND=$(CURDIR)/target/debug/vkey

.PHONY: test
test: lint-quick module istio $(ENVOY) ## Run the lints, the tests of library, command and repository, the scenarios, and the main end-to-end tests
	@tools/setup.sh python3
	@tools/setup.sh redis
	$(TEST_ENV) tools/quick-tests.sh $(abspath $(ENVOY))
	@echo "make test: all passed"

.PHONY: check
check: test check-rest test-checkov test-image test-limitador ## Run all checks and tests: on one Envoy of each minor version, with MCP peers, client libraries and mutants
	@echo "make check: all passed"

# What `make check` does after `make test`.
.PHONY: check-rest
check-rest: lint module build-faults build-skip build-broken istio test-wasm test-js test-page test-deploy $(EVERY_ENVOY) $(PLAIN_NGINX) $(MCP_SERVER) $(MCP_CLIENT)/installed $(MCP_PEERS)/installed $(MCP_CLIENT_1)/installed $(CLIENTS)/installed
	@tools/setup.sh python3
	$(TEST_ENV) tools/rest-tests.sh
	@tools/setup.sh valgrind
	@tools/bench-core.sh check
	@tools/setup.sh python3
	@tools/mutants.py --short
	$(TEST_ENV) tools/main-tests.sh --faults $(abspath $(OTHER_ENVOYS))
	@echo "make check-rest: all passed"

# What continuous integration does after `make test`: the parts of `make check` that find most and fit into its time.
# Left out are what talks to programs of other authors, the page, the files for Kubernetes on real Envoys, most end-to-end
# tests, other Envoys and mutants.
.PHONY: check-ci
check-ci: lint-docs module build-faults build-skip build-broken istio test-wasm test-js $(OLDEST_ENVOY) $(PLAIN_NGINX)
	@tools/setup.sh python3
	$(TEST_ENV) tools/rest-tests.sh --short
	@tools/setup.sh valgrind
	@tools/bench-core.sh check
	@echo "make check-ci: all passed"

# The library is checked by itself first, because the dependencies of the tests could hide a missing one. The stack is
# as large as that of a native test. The runner accepts a binary without tests; the last check does not.
WASM_TESTS := -p vkey --target wasm32-unknown-unknown
.PHONY: test-wasm
test-wasm: rust $(WASM_RUNNER) ## Run the vectors, the properties and the evasions on wasm32-unknown-unknown, in Node
	cargo check --lib $(WASM_TESTS)
	set -o pipefail; CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$(CURDIR)/$(WASM_RUNNER) \
	CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS=-Clink-arg=-zstack-size=2097152 \
	cargo test $(WASM_TESTS) --test vectors --test properties --test mcp_evasions 2>&1 | tee target/test-wasm.log
	@! grep -F 'no tests to run' target/test-wasm.log
	@echo "make test-wasm: all passed"

.PHONY: js
js: rust $(WASM_OPT) $(WASM_BINDGEN) ## Build the npm package vkey for JavaScript in target/js
	@tools/build-js.sh target/js

# The command in the tests is that of the library, whatever module it has.
.PHONY: test-js
test-js: js $(WASM_RUNNER) $(TYPESCRIPT)/installed ## Test the package for JavaScript in Node, Chromium and a TypeScript project
	@tools/setup.sh chromium
	cargo build --locked -p vkey-cli
	$(TEST_ENV) tools/test-js.sh
	@echo "make test-js: all passed"

# The page includes the package of target/js. The store is filled by a server of its own.
.PHONY: test-page
test-page: js $(PAGE_TOOLS)/installed ## Test the page of `vkey serve` in Chromium, with 100 000 records
	@tools/setup.sh chromium
	cargo build --locked -p vkey-server --example page
	tools/test-page.sh $(PAGE_TOOLS)
	@echo "make test-page: all passed"

# The tests know the tools by the environment.
.PHONY: test-deploy
test-deploy: module istio $(ENVOY) $(OLDEST_ENVOY) $(DEPLOY_TOOLS)/installed $(RELEASE_TOOLS)/installed ## Check the files for Kubernetes, Istio and Envoy Gateway: schemas, rules, and what Envoy does with them
	@tools/setup.sh openssl
	@tools/setup.sh minisign
	@tools/setup.sh redis
	cargo build --locked -p vkey-cli
	$(TEST_ENV) VKEY_TEST_DEPLOY_TOOLS=$(CURDIR)/$(DEPLOY_TOOLS)/bin VKEY_TEST_RELEASE_TOOLS=$(CURDIR)/$(RELEASE_TOOLS) \
	$(DEPLOY_TOOLS)/bin/python -B -m unittest discover -s filters/vkey/deploy/tests -t filters/vkey/deploy/tests
	@echo "make test-deploy: all passed"

.PHONY: test-checkov
test-checkov: $(DEPLOY_TOOLS)/installed $(CHECKOV)/installed ## Check the objects for Kubernetes with checkov
	VKEY_TEST_DEPLOY_TOOLS=$(CURDIR)/$(DEPLOY_TOOLS)/bin VKEY_TEST_CHECKOV=$(CURDIR)/$(CHECKOV)/bin/checkov \
	$(DEPLOY_TOOLS)/bin/python -B -m unittest discover -s filters/vkey/deploy/tests -t filters/vkey/deploy/tests -p test_checkov.py
	@echo "make test-checkov: all passed"

.PHONY: test-image
test-image: module $(ENVOY) $(DEPLOY_TOOLS)/installed ## Check the images: their bytes, a registry, signatures, and the gate as a restricted container
	@tools/setup.sh buildah
	@tools/setup.sh containers
	@tools/setup.sh openssl
	cargo build --locked -p vkey-cli
	$(TEST_ENV) $(DEPLOY_TOOLS)/bin/python -B -m unittest discover -s filters/vkey/deploy/tests -t filters/vkey/deploy/tests -p test_image.py
	@echo "make test-image: all passed"

.PHONY: test-limitador
test-limitador: module $(ENVOY) $(OLDEST_ENVOY) $(DEPLOY_TOOLS)/installed $(LIMITADOR) ## Check the limits of the whole cluster with Limitador
	@tools/setup.sh redis
	cargo build --locked -p vkey-cli
	$(TEST_ENV) VKEY_TEST_DEPLOY_TOOLS=$(CURDIR)/$(DEPLOY_TOOLS)/bin VKEY_TEST_LIMITADOR=$(CURDIR)/$(LIMITADOR) \
	$(DEPLOY_TOOLS)/bin/python -B -m unittest discover -s filters/vkey/deploy/tests -t filters/vkey/deploy/tests -p test_limits.py -k Limitador
	@echo "make test-limitador: all passed"

.PHONY: check-nginx
check-nginx: $(if $(NGINX),module) ## Run the tests that need an nginx with WasmX (NGINX=/path/to/nginx)
ifeq ($(NGINX),)
	@echo "skipped: no nginx with WasmX (NGINX=/path/to/nginx)"
else
	@$(NGINX) -V 2>&1 | grep -qi wasm || { echo "check-nginx: $(NGINX) was built without WasmX" >&2; exit 1; }
	VKEY_TEST_NGINX_WASMX=$(abspath $(NGINX)) VKEY_TEST_WASM=$(CURDIR)/target/vkey.wasm \
	VKEY_TEST_WASM_NGINX=$(CURDIR)/target/vkey-nginx.wasm cargo test --test nginx -- --ignored wasmx::
	@echo "make check-nginx: all passed"
endif

.PHONY: mutants
mutants: rust $(PLAIN_NGINX) ## Break limits and gates on purpose, one at a time, and check that tests fail (`make check` runs some)
	@tools/setup.sh python3
	cargo build --package vkey-cli
	@tools/mutants.py

.PHONY: memory
memory: module $(ENVOY) ## Measure the memory that a key takes in the proxy, with 100 000 keys
	VKEY_TEST_ENVOY=$(abspath $(ENVOY)) VKEY_TEST_WASM=$(CURDIR)/target/vkey.wasm \
	cargo test --quiet --test envoy -- --exact memory::a_key_takes_at_most_400_bytes --nocapture

.PHONY: lines
lines: module ## Send a million lines through `vkey run` and check that its memory does not grow
	VKEY_RUN_LINES=1000000 cargo test --quiet --test command -- \
	--exact run::memory_does_not_grow_with_the_lines --nocapture

.PHONY: latency
latency: module $(ENVOY) $(OLDEST_ENVOY) ## Measure the latency that the upstream gate adds to a request
	VKEY_TEST_ENVOYS=$(abspath $(OLDEST_ENVOY)):$(abspath $(ENVOY)) VKEY_TEST_WASM=$(CURDIR)/target/vkey.wasm \
	cargo test --quiet --test envoy -- --exact upstream_latency::the_gate_adds_little --nocapture

.PHONY: bench-core
bench-core: rust ## Count instructions of the core and compare with the baseline (ACCEPT=1: replace it; PROFILE=SCENARIO: show functions)
	@tools/setup.sh valgrind
	@tools/bench-core.sh $(if $(PROFILE),profile "$(PROFILE)",$(if $(ACCEPT),accept,check))

.PHONY: bench-compare
bench-compare: rust ## Compare the instructions of the core with those of BASE=REVISION
	@tools/setup.sh valgrind
	@tools/bench-core.sh compare "$(BASE)"

.PHONY: bench-body
bench-body: rust $(WASM_OPT) ## Measure how fast bodies are read, natively and as wasm (STRICT=1: a missed target is a failure)
	@tools/bench-body.sh

.PHONY: bench-store
bench-store: rust ## Measure how fast the collector takes lines, and what questions take (RECORDS=1000000 MAX_RECORDS=number STRICT=1)
	$(foreach name,RECORDS MAX_RECORDS STRICT,$(if $($(name)),$(name)=$($(name)))) \
	cargo bench --quiet --profile release -p vkey-server --bench store

.PHONY: bench
bench: module build-floor build-noop $(ENVOY) ## Measure the cost of a request, compared with Envoy's own filters (ROUNDS=4 SECONDS=2 CASES=text QUICK=1 STRICT=1; COUNT=1: instructions, not time; COUNT=1 PROFILE=CASE: the functions of the module)
	@tools/setup.sh $(if $(COUNT),callgrind,wrk)
	VKEY_TEST_ENVOY=$(abspath $(ENVOY)) VKEY_TEST_WASM=$(CURDIR)/target/vkey.wasm \
	VKEY_BENCH_NOOP=$(CURDIR)/target/noop.wasm VKEY_BENCH_FLOOR=$(CURDIR)/target/floor.wasm \
	cargo bench --quiet --profile dev --bench envoy -- \
	$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(CASES),--cases $(CASES)) \
	$(if $(QUICK),--quick) $(if $(STRICT),--strict) $(if $(COUNT),--count) $(if $(PROFILE),--profile $(PROFILE))

.PHONY: lint
lint: lint-quick lint-docs ## Check format, lints and the links of the documentation
	cargo clippy --workspace --exclude vkey-filter --exclude vkey-floor --exclude vkey-noop --all-targets -- -D warnings
	cargo clippy -p vkey-filter --target wasm32-wasip1 --features faults -- -D warnings
	cargo clippy -p vkey-filter --target wasm32-wasip1 --features nginx -- -D warnings
	cargo clippy -p vkey-js --target wasm32-unknown-unknown --all-targets -- -D warnings
	cargo clippy -p vkey-noop --target wasm32-wasip1 -- -D warnings
	cargo clippy -p vkey-floor --target wasm32-wasip1 -- -D warnings

.PHONY: lint-docs
lint-docs: rust
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace --exclude vkey-filter --exclude vkey-floor --exclude vkey-noop

# Without the tests, because their dependencies take a minute to check.
.PHONY: lint-quick
lint-quick: rust
	cargo fmt --all --check
	cargo clippy --workspace --exclude vkey-filter --exclude vkey-floor --exclude vkey-noop --lib --bins -- -D warnings
	cargo clippy -p vkey-filter --target wasm32-wasip1 -- -D warnings

.PHONY: fmt
fmt: rust ## Format the sources
	cargo fmt --all

ISTIO := filters/vkey/deploy/istio

.PHONY: istio
istio: module ## Write target/istio/{wasmplugin,trafficextension,waypoint}.yaml with the checksum of the built module
	@mkdir -p target/istio
	@sum=$$(sha256sum < target/vkey.wasm) && pin="s/^\\( *sha256:\\) \"\".*/\\1 \"$${sum%% *}\"/" && \
	for name in wasmplugin trafficextension waypoint; do sed "$$pin" $(ISTIO)/$$name.yaml > target/istio/$$name.yaml || exit 1; done
	@sed -n '/^---$$/,$$p' $(ISTIO)/wasmplugin.yaml >> target/istio/trafficextension.yaml # the seal, and what else an EnvoyFilter says
	@printf '%s\n' target/istio/wasmplugin.yaml target/istio/trafficextension.yaml target/istio/waypoint.yaml

# The images that are made, e.g. IMAGES=module where the base images cannot be pulled.
IMAGES ?= module gate command

.PHONY: image
image: $(if $(filter command,$(IMAGES)),build,module) ## Build images in target/image, the same bytes each time (IMAGES="module gate command" GATE_BASE=image COMMAND_BASE=image)
	@tools/setup.sh buildah
	$(foreach name,GATE_BASE COMMAND_BASE,$(if $($(name)),$(name)=$($(name)))) tools/image.sh build $(IMAGES)

.PHONY: push
push: ## Push the images of `make image`, and print them with their digests (REGISTRY=registry.example/team TAG=0.1.0 SIGN_KEY=file)
	@tools/setup.sh buildah
	@tools/setup.sh openssl
	@$(foreach name,TAG SIGN_KEY,$(if $($(name)),$(name)=$($(name)))) tools/image.sh push "$(REGISTRY)" $(IMAGES)

.PHONY: deny
deny: rust $(RELEASE_TOOLS)/installed ## Check licences, versions and sources of all dependencies (ADVISORY_DB=clone of rustsec/advisory-db: also known vulnerabilities)
	@$(if $(ADVISORY_DB),ADVISORY_DB=$(abspath $(ADVISORY_DB))) tools/deny.sh

# A relative path is that of whoever calls make.
RELEASE_ENV := $(if $(MINISIGN_KEY),MINISIGN_KEY=$(abspath $(MINISIGN_KEY)))

# First, so that a long build does not end here.
.PHONY: release-ready
release-ready:
	@$(RELEASE_ENV) tools/release.sh ready

.PHONY: release
release: release-ready build deny check-reproducible ## Write the files of a release into dist, with checksums (MINISIGN_KEY=secret key: signed; POLICY=PATH as for build)
	@$(if $(MINISIGN_KEY),tools/setup.sh minisign)
	@tools/release.sh ready
	@tools/release.sh collect target dist
	@$(RELEASE_ENV) tools/release.sh finish dist

.PHONY: check-reproducible
check-reproducible: module ## Build both modules once more from a copy of the checkout, and compare the bytes
	@tools/release.sh rebuild target/vkey.wasm target/vkey-nginx.wasm

.PHONY: clean
clean: ## Remove build results (the installed tools stay in .tools)
	cargo clean

# The module, compiled for the command too. If tests follow, an example is built with the compiler: it needs the
# dependencies of the tests, which change the features of the compiler's. Otherwise cargo builds them twice.
PRECOMPILE := -p vkey-vm --features compiler
test check check-rest check-nginx lines memory latency bench: PRECOMPILE := --features vkey-vm/compiler --example tokens
.PHONY: module
module: rust $(WASM_OPT)
	@tools/build-modules.sh $(PRECOMPILE)

# The module with faults that the tests switch on. Its dependencies are those of the module, which are built.
.PHONY: build-faults
build-faults: rust $(WASM_OPT)
	@LEVEL=-O1 tools/build-wasm.sh target/vkey-faults.wasm --features faults

# The module with a policy with exceptions. It is never shipped either.
.PHONY: build-skip
build-skip: rust $(WASM_OPT)
	@LEVEL=-O1 POLICY=testdata/policies/skip.json tools/build-wasm.sh target/vkey-skip.wasm

# A module that does nothing, as a baseline for `make bench`.
.PHONY: build-noop
build-noop: rust $(WASM_OPT)
	@PACKAGE=vkey-noop tools/build-wasm.sh target/noop.wasm

# A module that makes only the host calls that the job needs, as the yardstick of `make bench`.
.PHONY: build-floor
build-floor: rust $(WASM_OPT)
	@PACKAGE=vkey-floor tools/build-wasm.sh target/floor.wasm

# Checks that the build refuses a policy with an error, and reports file, line and reason.
.PHONY: build-broken
build-broken: rust
	@! POLICY=testdata/policies/broken.json \
	cargo check --quiet -p vkey-filter --target wasm32-wasip1 2> target/broken.log
	@grep -F 'testdata/policies/broken.json:7: upstreams[0].insecure_skip_verify: api.openai.com is a known host' \
	target/broken.log

.PHONY: rust
rust:
	@tools/setup.sh rust

$(WASM_OPT): tools/package.json tools/package-lock.json
	@tools/setup.sh wasm-opt $@

# Both are built at once: what they stand on takes minutes.
$(WASM_RUNNER): tools/wasm-runner/Cargo.toml tools/wasm-runner/Cargo.lock $(wildcard tools/wasm-runner/src/*.rs tools/wasm-runner/src/bin/*.rs)
	@tools/setup.sh wasm-runner $(WASM_RUNNER) $(WASM_BINDGEN)

$(WASM_BINDGEN): $(WASM_RUNNER)
	@[ -x $@ ] || tools/setup.sh wasm-runner $(WASM_RUNNER) $@
	@touch $@

$(CHECKOV)/installed: tools/checkov/requirements.txt
	@tools/setup.sh checkov $(CHECKOV)

$(LIMITADOR): tools/limitador/Cargo.toml tools/limitador/Cargo.lock tools/limitador/src/main.rs
	@tools/setup.sh limitador $@

$(TYPESCRIPT)/installed: tools/js/package.json tools/js/package-lock.json
	@tools/setup.sh typescript $(TYPESCRIPT)

$(PAGE_TOOLS)/installed: tools/page/package.json tools/page/package-lock.json
	@tools/setup.sh page-tools $(PAGE_TOOLS)

$(MCP_SERVER): tools/mcp/package.json tools/mcp/package-lock.json
	@tools/setup.sh mcp-server $@

$(MCP_CLIENT)/installed: tools/mcp/requirements.txt
	@tools/setup.sh mcp-client $(MCP_CLIENT)

$(MCP_PEERS)/installed: tools/mcp-peers/package.json tools/mcp-peers/package-lock.json
	@tools/setup.sh mcp-peers $(MCP_PEERS)

$(MCP_CLIENT_1)/installed: tools/mcp-peers/requirements.txt
	@tools/setup.sh mcp-client-1 $(MCP_CLIENT_1)

$(CLIENTS)/installed: tools/clients/requirements.txt
	@tools/setup.sh clients $(CLIENTS)

$(DEPLOY_TOOLS)/installed: tools/deploy/requirements.txt tools/deploy/package.json tools/deploy/package-lock.json
	@tools/setup.sh deploy $(DEPLOY_TOOLS)

$(RELEASE_TOOLS)/installed: tools/release/requirements.txt
	@tools/setup.sh release $(RELEASE_TOOLS)

$(PLAIN_NGINX):
	@tools/setup.sh nginx $@

$(EVERY_ENVOY): .tools/envoy-%:
	@tools/setup.sh envoy $* $@
