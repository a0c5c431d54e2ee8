# Every target does its own set-up; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup engine image orchestrator cluster cluster-stop chart demo test rootless unit fuzz lint types check bench soak clean

BIN := .venv/bin
# The one that `make cluster` built, where there is none in PATH.
HELM := $(or $(shell command -v helm),$(or $(PERSTACK_CLUSTER_DIR),/var/lib/perstack-cluster)/bin/helm)
# Lines, frames and greetings of a container, requests to its proxy, paths, names and keys that somebody chose.
FUZZED := $(addprefix tests/unit/, broker/test_client_hello.py config/test_domains.py config/test_expert_key.py \
  backends/test_lines.py backends/test_docker_log.py backends/test_naming.py runtime/test_proxy_request.py \
  runtime/tools/test_paths.py wire/test_masking.py test_users.py wire/test_line.py)

# A tier of tests that cannot start fails if it is one of these.
REQUIRED := docker
ifdef CI
REQUIRED := docker,helm,internet,kubernetes
endif

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: ## Make .venv with the locked dependencies
	@dev/setup

engine: ## Make sure that a Docker engine answers (Debian as root: installs and starts one)
	@dev/engine

image: engine ## Build the image that Sandboxes run, if anything in it changed
	@dev/image

orchestrator: engine ## Build the image of the orchestrator itself, for Experts that are shipped as an image
	@dev/orchestrator-image

cluster: ## Make sure that a Kubernetes cluster answers (Debian as root: builds and starts one; minutes, once)
	@dev/cluster
	@dev/cluster images

cluster-stop: ## Stop the cluster that was started here; nothing of it is left but its files
	@dev/cluster stop

chart: setup ## Write the chart's README and schema from its values, and check its templates
	@$(BIN)/python dev/chart
	@$(HELM) lint --strict --quiet helm/perstack-orch
	@$(BIN)/pytest -q tests/chart -m "not kubernetes"

demo: setup ## Run the fitness example, every Run in a container of its own
	@dev/demo

test: setup image ## Run all tests; a Docker engine is needed, what needs more is skipped loudly (CI=true: nothing is)
	@PERSTACK_TEST_REQUIRE=$(REQUIRED) dev/tests

rootless: setup image ## Run the tests of a Sandbox's walls in a rootless engine, as a user without privileges (Debian as root)
	@dev/rootless

unit: setup ## Run the fast tests: no engine, no container, seconds
	@$(BIN)/pytest tests/unit

fuzz: setup ## Try what reads hostile input with some hundred thousand inputs (minutes)
	@$(BIN)/pytest --hypothesis-profile=fuzz -q $(FUZZED)

lint: setup ## Look for mistakes, wrong format and imports that break the layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: setup ## Check types, strictly
	@$(BIN)/mypy

check: lint types ## All checks that run no code
	@$(BIN)/python dev/chart --check
	@if command -v $(HELM) >/dev/null; then $(HELM) lint --strict --quiet helm/perstack-orch; \
	  else echo "check: there is no helm, so the chart is not looked at (make cluster builds one)"; fi

bench: engine image ## Measure against bare containers; writes bench/RESULTS.md (ONLY="starts hops": those alone)
	@dev/setup bench
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

soak: setup image ## Let everything go wrong, often, and count what is lost; writes bench/RELIABILITY.md (an hour; ONLY="cuts": those alone)
	@$(BIN)/python -m bench.soak $(if $(SEED),--seed $(SEED)) $(if $(SHARE),--share $(SHARE)) $(if $(ONLY),--only $(ONLY))

clean: ## Remove what was made here: environment, caches, the demo's files
	@rm -rf .venv .dev .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
