# `make demo` and `make test` set up .venv by themselves; both work on a machine where nothing is installed.
VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: demo test test-all lint

demo: $(VENV)/ready
	$(PYTHON) -m trident demo

# All tests on compiled kernels; then the values again in Triton's interpreter, which compiles nothing, and with every
# access checked against its tensor's storage.
VALUES := tests/test_laws.py -k "equals_float64 and float32"
test: lint
	$(PYTHON) -m pytest -q -n 2
	TRITON_INTERPRET=1 $(PYTHON) -m pytest -q -n 2 $(VALUES)
	TRIDENT_CPU_SANITIZE=1 $(PYTHON) -m pytest -q -n 2 $(VALUES)

# The same with every dtype at every shape, every variant of a launch compiled for GPUs: an hour on 2 cores.
test-all: export TRIDENT_TESTS = all
test-all: test

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mkdocs build --strict --quiet --site-dir out/site

# Liger-Kernel: kernels for tests/cpu/test_liger.py to run. Not in the requirements: its torch and triton are those there.
$(VENV)/ready: requirements-dev.txt pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --requirement requirements-dev.txt
	$(PYTHON) -m pip install --quiet --no-deps liger-kernel==0.8.5
	$(PYTHON) -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@
