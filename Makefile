# `make demo` and `make test` set up .venv by themselves; both work on a machine where nothing is installed.
VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: demo test lint

demo: $(VENV)/ready
	$(PYTHON) -m trident demo

test: lint
	$(PYTHON) -m pytest

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(VENV)/ready: requirements-dev.txt pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --requirement requirements-dev.txt
	$(PYTHON) -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@
