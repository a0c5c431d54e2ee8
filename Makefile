# Every target sets up what it needs; `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup engine image orchestrator cluster cluster-stop installed chart demo test engines rootless unit judges fuzz lint types check bench soak clean

BIN := .venv/bin
# Tests start thousands of processes. Without bytecode each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
# The helm in PATH, else the one that `make cluster` built.
HELM := $(or $(shell command -v helm),$(or $(PERSTACK_CLUSTER_DIR),/var/lib/perstack-cluster)/bin/helm)
# Input that may be hostile: lines, frames and greetings of a container, requests to its proxy, paths, names and keys.
FUZZED := $(addprefix tests/unit/, egress/test_client_hello.py config/test_domains.py config/test_expert_key.py \
  backends/test_line_splitter.py backends/docker/test_logs.py sandbox/test_naming.py runtime/test_proxy_request.py \
  runtime/tools/test_paths.py wire/test_masking.py workspace/test_users.py wire/test_line.py disk/test_deletion.py) \
  $(addprefix tests/judges/mcp/, test_messages.py test_json_schema.py test_event_stream.py test_http.py)

# These tiers of tests fail if they cannot start.
comma := ,
REQUIRED := docker
ifdef CI
REQUIRED := docker,helm,installed,internet,kubernetes,podman_service,sshd$(if $(wildcard /dev/loop-control),$(comma)folding_share)
endif

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: ## Create .venv with the locked dependencies
	@dev/setup

engine: ## Check that a Docker engine answers (Debian as root: install and start one)
	@dev/engine

image: setup engine ## Build the image of Sandboxes, if its contents changed
	@dev/image

orchestrator: setup engine ## Build the image of the orchestrator, for coordinators in a cluster
	@dev/orchestrator-image

cluster: ## Check that a Kubernetes cluster answers (Debian as root: build and start one, once takes minutes)
	@dev/cluster
	@dev/cluster images

cluster-stop: ## Stop the cluster that was started here; only its files stay
	@dev/cluster stop

installed: ## Prepare what tests of an installed package need (Debian as root, once takes a minute)
	@dev/installed

chart: setup ## Write the chart's README and schema from its values, and test its templates
	@$(BIN)/python dev/chart
	@$(HELM) lint --strict --quiet helm/perstack-orch
	@$(BIN)/pytest -q tests/chart -m "not kubernetes"

demo: setup ## Run the fitness example, every Run in its own container
	@dev/demo

test: setup image ## Run all tests; needs a Docker engine; reports other tiers it must skip (CI=true: they fail)
	@PERSTACK_TEST_REQUIRE=$(REQUIRED) dev/tests

engines: setup image ## Run the tests that must hold on every engine on stand-ins for others (ONLY="podman gvisor"; Debian as root)
	@dev/engine-tests $(ONLY)

rootless: setup image ## Run the isolation tests in a rootless engine, as an unprivileged user (Debian as root)
	@dev/rootless

unit: setup ## Run the unit tests: no engine, no container, seconds
	@$(BIN)/pytest -n auto --dist worksteal tests/unit

judges: setup ## Compare our clients of model APIs with the APIs' SDKs, in the newest and the lowest version (two minutes)
	@dev/judges

fuzz: setup ## Fuzz the parsers of hostile input with several hundred thousand inputs (minutes)
	@$(BIN)/pytest --hypothesis-profile=fuzz -q $(FUZZED)

lint: setup ## Check code, format, import layers and words (docs/style.md)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/python dev/words
	@dev/locked-requirements --check

types: setup ## Check types with mypy, strict; those of the host also for macOS
	@$(BIN)/mypy
	@$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin -p orchestrator --exclude '^orchestrator/(runtime|backends/process)/'
	@cd tests/plugins/example && MYPYPATH=src ../../../$(BIN)/mypy --config-file ../../../pyproject.toml --cache-dir ../../../.mypy_cache/example -p perstack_orch_example

check: lint types ## Run all static checks
	@$(BIN)/python dev/chart --check
	@if command -v $(HELM) >/dev/null; then $(HELM) lint --strict --quiet helm/perstack-orch; \
	  else echo "check: helm is not installed, so the chart is not checked (make cluster builds helm)"; fi

bench: engine image ## Measure against bare containers; write bench/RESULTS.md (ONLY="starts hops": only these; PERSTACK_LINK=stream: with streams)
	@dev/setup bench
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

soak: setup image ## Inject failures and count lost events; write bench/RELIABILITY.md (an hour; ONLY="cuts": only these)
	@$(BIN)/python -m bench.soak $(if $(SEED),--seed $(SEED)) $(if $(SHARE),--share $(SHARE)) $(if $(ONLY),--only $(ONLY))

clean: ## Remove the environment, caches and the demo's files
	@rm -rf .venv .dev .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
