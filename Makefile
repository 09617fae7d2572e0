# Six verbs, the same for people and CI. Each makes .venv when it is missing or pyproject.toml has
# changed, so any of them is a first command in a fresh clone.
#
#   make install   .venv with rdata (editable) and the tools for developing it
#   make check     formatter, linter, types, import contracts; changes nothing
#   make test      the default test suite, doctests included; more: make test ARGS='-m soak'
#   make docs      follows the links of the Markdown pages and runs README's examples
#   make demo      the main job, embedded: CSV -> pandas function -> Parquet
#   make bench     measures against the peers, which it installs; figures as in README.md

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install check test bench docs demo
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   \(make [a-z].*\)/\1/p' Makefile

install: $(VENV)/.installed-dev

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install
	$(BIN)/python -m pytest $(ARGS)

docs: install
	$(BIN)/python -m pytest tests/contracts/test_pages.py $(ARGS)

demo: install
	$(BIN)/python examples/etl_csv.py $(ARGS)

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/run_all.py $(ARGS)

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: rdata needs Python 3.11 or later, and '$(PYTHON)' is not: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "make: $(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; \
	  exit 1; }

# A stamp a set of extras: newer than pyproject.toml means installed.
$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	@echo 'installing rdata and its tools into $(VENV)'
	@$(BIN)/pip install -qq --editable '.[dev]'
	@touch $@

$(VENV)/.installed-bench: pyproject.toml | $(VENV)/.installed-dev
	@echo 'installing the peers into $(VENV)'
	@$(BIN)/pip install -qq --editable '.[dev,bench]'
	@touch $@
