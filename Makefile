# Two commands set up their own environment and may be repeated: `make demo` and `make test`.
# Plain recipes, one shell per line: GNU make 3.81 (macOS) and later read this file.

PYTHON ?= python3
# `make demo INSTALL_FLAGS=` shows pip's own progress.
INSTALL_FLAGS ?= --quiet
# Processes of the tests, of one thread each: `make test JOBS=8`.
JOBS ?= 2
DEMO := train compare collage --out runs/demo --resume

override VENV := .venv
override BIN := $(VENV)/bin
# Touched only after a complete installation, so an interrupted one starts again.
override STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-all install lint types docs docs-serve notebooks sanitize survive results-check clean

help:
	@echo "make demo     set up .venv, then train and compare all arms on the embedded data set"
	@echo "make test     set up .venv, then lint, types and the fast tests (minutes)"
	@echo "make test-all as make test, with the slow tests of tests/full (half an hour)"
	@echo "make install  set up .venv only"
	@echo "make lint     ruff: rules and format"
	@echo "make types    mypy"
	@echo "make docs     build the pages of docs/ into build/docs, strictly"
	@echo "make docs-serve show them at http://127.0.0.1:8000"
	@echo "make notebooks write examples as notebooks into build/notebooks"
	@echo "make sanitize the native code under the address, undefined-behaviour and thread sanitizers"
	@echo "make survive  kill a training twenty times at random moments, and compare it with a whole one"
	@echo "make results-check  recompute every number of RESULTS.md from the stored runs"
	@echo "make clean    remove .venv, caches and build outputs; runs/ stays"
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter of .venv (3.10 or later; now: $(PYTHON))"

demo: $(STAMP)
	@$(BIN)/python -m $(DEMO)
	@$(BIN)/python -m eval export runs/demo --out runs/demo/pretrained

test: lint types
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations=10

test-all: lint types
	@$(BIN)/python -m pytest tests -n $(JOBS) --dist worksteal --durations=10 --hypothesis-profile=full

install: $(STAMP)
	@echo "$(VENV) is ready"

lint: $(STAMP)
	@$(BIN)/python -m ruff check --quiet
	@$(BIN)/python -m ruff format --check --quiet

types: $(STAMP)
	@$(BIN)/python -m mypy

docs: $(STAMP)
	@$(BIN)/python -m pip install $(INSTALL_FLAGS) --disable-pip-version-check -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/docs/index.html is ready"

docs-serve: docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

notebooks: $(STAMP)
	@$(BIN)/python -m pip install $(INSTALL_FLAGS) --disable-pip-version-check -e '.[notebooks]'
	@$(BIN)/python docs/notebooks.py build/notebooks

# Without .venv: a C++ compiler is all it needs.
sanitize:
	@mkdir -p build
	@for checks in address,undefined thread; do \
		$(CXX) -std=gnu++17 -O1 -g -Wall -Wextra -Werror -Wno-psabi -pthread -Icrfrnn/csrc \
			-fsanitize=$$checks -fno-sanitize-recover=all \
			crfrnn/csrc/*.cpp tests/crfrnn/native_driver.cpp -o build/native_driver && \
		echo "$$checks:" && ./build/native_driver || exit 1; \
	done

survive: $(STAMP)
	@$(BIN)/python -m tests.full.train.kill_loop

results-check: $(STAMP)
	@$(BIN)/python -m eval results check

# An environment whose pip does not answer (interrupted, or its interpreter is gone) is made anew.
# A change of the native code builds it anew.
$(STAMP): pyproject.toml $(wildcard crfrnn/csrc/*)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "Creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing into $(VENV) (the first time several minutes: PyTorch is a download of gigabytes)"
	@$(BIN)/python -m pip install $(INSTALL_FLAGS) --disable-pip-version-check -e '.[research,dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
