# Every command a person needs. `make run` is enough to start; the rest is for development (CONTRIBUTING.md).
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?= demo
# Arguments for pytest, as in: make test ARGS="tests/server -k range"
ARGS ?=
# Processes that test side by side, each with a browser of its own; 0 shows what a test prints while it runs (ARGS=-s)
WORKERS ?= auto

VENV := .venv
PY := $(VENV)/bin/python
NODE := $(PY) scripts/node.py
PIP := $(PY) -m pip --disable-pip-version-check --quiet

# Stamps: a step runs again only when a file that it depends on changed, so a second `make run` starts at once.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
NPM := static/node_modules/.installed
VENDOR := static/vendor/LICENCES.txt
BROWSER := $(VENV)/.browser

.PHONY: help run setup test lint format bench screenshots clean
.DEFAULT_GOAL := help

help:
	@echo "make run      the chat page on http://$(HOST):$(PORT)/   (PORT=..., MODEL=demo, or a hub id or folder)"
	@echo "make test     unit tests and end-to-end tests in a real browser"
	@echo "make lint     ruff, mypy, eslint, tsc"
	@echo "make format   ruff's formatter and automatic fixes"
	@echo "make bench    speed of a model in the browser here (MODEL=demo, ARGS=\"--json FILE\")"
	@echo "make screenshots  the pictures of docs/screenshots.md again (ARGS=\"--only on_a_phone\")"
	@echo "make clean    remove what the commands above installed or built in this folder"

run: $(INSTALLED) $(VENDOR)
	@exec $(PY) -m server --model "$(MODEL)" --host "$(HOST)" --port "$(PORT)"

setup: $(INSTALLED_DEV) $(VENDOR) $(BROWSER)

test: $(INSTALLED_DEV) $(VENDOR) $(BROWSER)
	$(PY) -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(INSTALLED_DEV) $(VENDOR)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(NODE) npm --prefix static run --silent lint
	$(NODE) npm --prefix static run --silent types

format: $(INSTALLED_DEV)
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

bench: $(INSTALLED_DEV) $(VENDOR) $(BROWSER)
	$(PY) -m e2e.bench --model "$(MODEL)" $(ARGS)

screenshots: $(INSTALLED_DEV) $(VENDOR) $(BROWSER)
	$(PY) scripts/screenshots.py $(ARGS)

clean:
	rm -rf $(VENV) static/node_modules static/vendor static/vendor.new build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis test-results

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "WebGemma needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(PY)
	$(PIP) install --editable . --constraint constraints.txt
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(PY)
	$(PIP) install --editable '.[dev]' --constraint constraints.txt
	@touch $(INSTALLED) $@

$(NPM): static/package.json static/package-lock.json scripts/node.py | $(INSTALLED)
	$(NODE) npm --prefix static ci --silent
	@touch $@

$(VENDOR): $(NPM) static/scripts/vendor.mjs
	$(NODE) npm --prefix static run --silent vendor

$(BROWSER): scripts/install_browser.py | $(INSTALLED_DEV)
	$(PY) scripts/install_browser.py
	@touch $@
