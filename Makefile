# `make` lists what there is. Everything runs in .venv, made from requirements.lock; a Python 3.11 or
# newer as `python3` (or PYTHON=...) is all that is needed. `make up ARGS=--no-demo` passes arguments on.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/installed-from-lock
WEB := ui/web
APP := ui/static/app/index.html
# The web app needs Node 20.19 or newer; where there is none, all else works without it.
NODE := $(shell node -p 'const [a, b] = process.versions.node.split("."); +(a > 20 || (a == 20 && b > 18))' 2>/dev/null)

# What a shell may have set for other projects must not reach this one.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX PIP_USER PIP_TARGET PIP_PREFIX UV_PROJECT_ENVIRONMENT
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help up dashboard test check web browser screenshots session grafana format unit integration crash bench lock clean system chromium

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(READY) dashboard ## start everything: server, API, workers, projector, mail catcher, and a short demo
	@$(BIN)/python -P -m penstock.ui up $(ARGS)

test: $(READY) system check web unit integration crash browser ## set up and run all checks and tests, as CI does

check: $(READY) ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy tests

ifeq ($(NODE),1)
dashboard: $(APP) ## build the dashboard's web app, where it is older than its source

web: $(APP) ## lint, types and unit tests of the web app
	cd $(WEB) && npm run --silent check && npm test --silent

browser: $(READY) $(APP) chromium ## the web app in Chromium, on real servers
	node --test --test-timeout=300000 tests/browser/*.test.mjs

screenshots: $(READY) $(APP) chromium ## pictures of each page, of a scene played for it (ARGS="[URL] FOLDER")
	node tests/browser/look.mjs $(ARGS)
else
dashboard web browser screenshots:
	@echo "make $@ is left out: it needs Node 20.19 or newer; all but the dashboard's pages works without." >&2
	@[ "$(CI)" != true ] || [ $@ = dashboard ]
endif

session: $(READY) system ## play the recorded incident again, and write its page and pictures
	$(BIN)/python -P -m penstock.ui.recordings $(ARGS)

grafana: $(READY) ## write Grafana's dashboards again, from their code in ui/grafana
	$(BIN)/python -P -m penstock.ui.grafana infra/grafana/dashboards

format: $(READY) ## let ruff format and fix what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

unit: $(READY) system ## tests that need no server
	$(BIN)/pytest -q -n 2 tests/unit $(ARGS)

integration: $(READY) system ## tests on real servers
	$(BIN)/pytest -q -n 3 -m "not load" tests/integration tests/bench $(ARGS)
	$(BIN)/pytest -q -m load tests/integration

crash: $(READY) system ## tests that kill processes in mid-work
	$(BIN)/pytest -q -n 2 tests/crash $(ARGS)

bench: $(READY) system ## measure it against the ceiling and the peers (ARGS=--help)
	$(BIN)/python tests/bench $(ARGS)

lock: $(READY) ## make requirements.lock again from pyproject.toml, at the newest versions
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --upgrade --quiet \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	  --output-file requirements.lock

clean: ## remove the environment and all caches; data in .penstock stays
	rm -rf $(WEB)/node_modules ui/static/app $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis infra/src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is made anew when the lock or the package's description is newer than it: no package
# of an older lock, and nothing of another Python, stays behind.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Penstock needs Python 3.11 or newer; '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo not there). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock (the first time takes a minute or two) ..."
	@$(PYTHON) -m venv --clear $(VENV) || { \
	  echo "Could not make $(VENV). On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@

$(APP): $(WEB)/node_modules/.package-lock.json $(shell find $(WEB) -type f -not -path '*/node_modules/*' 2>/dev/null)
	@cd $(WEB) && npm run --silent build -- --logLevel warn && touch ../static/app/index.html

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json $(WEB)/package.json
	@echo "Setting up the packages of $(WEB) from its lock ..."
	@cd $(WEB) && npm ci --ignore-scripts --silent && touch node_modules/.package-lock.json

# What pip cannot bring, for the tests only. Where it cannot be had, the tests that need it are left
# out and named; under CI=true they fail.
system:
	@wanted=; for name in redis-server prometheus; do command -v $$name >/dev/null || wanted="$$wanted $$name"; done; \
	[ -z "$$wanted" ] || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qq -y --no-install-recommends $$wanted >/dev/null; \
	else \
	  echo "Not on PATH:$$wanted. Tests that need them are left out (on Valkey the others run)." >&2; \
	fi

chromium:
	@command -v chromium >/dev/null || [ "$(CI)" != true ] || [ "$$(id -u)" != 0 ] || { \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	    chromium >/dev/null; }
	@command -v chromium >/dev/null || echo "No chromium on PATH: its tests are left out." >&2
