# `make demo` and `make test` are all that a fresh clone needs: each makes its virtual environment
# on first use and reinstalls only when pyproject.toml changes.
#   PYTHON  interpreter that makes the environment (3.10 or newer)
#   VENV    where it is made
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint dev clean

help:
	@echo "make demo      train and evaluate the quickstart, write runs/demo"
	@echo "make test      run the tests"
	@echo "make test-all  run the tests and the slow ones"
	@echo "make lint      check style, format and types"
	@echo "make clean     remove environments, caches and builds; runs/ stays"

demo: $(VENV)/.offline.stamp
	@$(BIN)/hypergen demo

test: dev
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

test-all: dev
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m ""

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy hypergen

dev: $(VENV)/.dev.stamp

# Editable both times, so that the two sets of packages live side by side in one environment.
$(VENV)/.offline.stamp: pyproject.toml $(VENV)/.venv.stamp
	@echo "installing hypergen into $(VENV), once; this takes a few minutes" >&2
	@$(PIP) install --quiet -e '.[offline]'
	@touch $@

$(VENV)/.dev.stamp: pyproject.toml $(VENV)/.venv.stamp
	@echo "installing hypergen and its development tools into $(VENV), once" >&2
	@$(PIP) install --quiet -e '.[dev]'
	@touch $@ $(VENV)/.offline.stamp

$(VENV)/.venv.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "hypergen needs Python 3.10 or newer: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

clean:
	rm -rf .venv .venv-ci build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find hypergen tests experiments -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
