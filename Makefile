# Every verb of the project. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# A CPU build is enough everywhere but in `train` on a GPU machine; see README, 'Installing torch'.
TORCH  ?= torch==2.13.0
EXTRAS := train,inference,explain,local,openvino,dicom,import,register,dev
PORT   ?= 3000
REDIS_PORT ?= 6390
BUNDLE ?=

export LESIONLENS_HOME ?= $(CURDIR)/build/home
export BENTOML_DO_NOT_TRACK := True

.PHONY: help setup demo up down test lint bench eval proto clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(VENV)/.stamp ## a venv in the checkout with everything, exact versions (about 2 minutes, once)

$(VENV)/.stamp: pyproject.toml constraints.txt
	@echo "setup: creating $(VENV) and installing exact versions (about 2 minutes, once)"
	@start=$$SECONDS; said() { echo "setup: $$1 ($$((SECONDS - start)) s)"; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'; \
	$(PYTHON) -m venv $(VENV); \
	$(BIN)/pip install -qq --disable-pip-version-check --upgrade pip -c constraints.txt; \
	said "[1/3] virtual environment"; \
	$(BIN)/pip install -qq --disable-pip-version-check $(TORCH) -c constraints.txt; \
	said "[2/3] $(TORCH)"; \
	$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'; \
	touch $@; said "[3/3] everything else: done"

demo: setup ## the whole path for real: cohort, CNN, bundle, services, one explanation, its report
	@$(BIN)/lesionlens demo --out build/demo

up: setup ## start redis, inference and worker on this machine (PORT=3000 REDIS_PORT=6390 BUNDLE=...)
	@$(BIN)/lesionlens up --detach --port $(PORT) --redis-port $(REDIS_PORT) $(if $(BUNDLE),--bundle $(BUNDLE))

down: setup ## stop what 'up' started
	@$(BIN)/lesionlens down

test: setup ## every test (about 10 minutes); installs redis-server, chromium and an engine where it may
	@bash tests/system_packages.sh
	@$(BIN)/python -m pytest

lint: setup ## ruff, mypy, import-linter, and the generated contract files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/python -m wire.schemas --check
	@$(BIN)/python -m services.front.openapi --check

proto: setup ## write proto/*.json again from the code
	@$(BIN)/python -m wire.schemas
	@$(BIN)/python -m services.front.openapi --write

eval: setup ## everything that is claimed, measured (up to an hour on two cores; goes on where it stopped) -> build/eval/report.{json,html}
	@$(BIN)/lesionlens eval --out build/eval

bench: setup ## cost beside the bare model, other servers and torch (25 minutes; QUICK=1: a few minutes) -> build/bench, docs/performance.md
	@$(BIN)/python -m benchmarks.everything --bundle $(or $(BUNDLE),build/demo/bundle) --out build/bench $(if $(QUICK),--quick)

clean: ## remove build/ and the caches (the venv stays; rm -r .venv removes it)
	@if [ -x $(BIN)/lesionlens ]; then $(BIN)/lesionlens down >/dev/null 2>&1 || true; fi
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
