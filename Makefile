# `make demo` and `make test` set up .venv by themselves; both work on a machine where nothing is installed.
VENV := .venv
PYTHON := $(VENV)/bin/python

# Each process would compile the sources that it imports, tests and installed packages, if none were allowed to keep them.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo bench test test-all lint sanitised

demo: $(VENV)/ready
	$(PYTHON) -m trident demo

# docs/results.md, docs/rivals.md and the README's means, out/bench.html and out/rivals.html: 20 to 30 minutes on 2
# cores. Layers over a sequence are not compared with torch.compile: it took 7 minutes more to compile six of them.
# Ended by ctrl-C it goes on where it was. On a busy machine: make bench CLOCK=cpu
CLOCK := wall
BENCH := $(PYTHON) -m trident bench --backward --clock $(CLOCK)
bench: $(VENV)/ready
	$(BENCH) --seconds 0.2 --sizes 4x256,256x1024,2048x2048 --largest 13000000 \
	    --html out/bench.html --csv out/bench.csv --markdown docs/results.md --readme README.md README.ko.md
	$(BENCH) --seconds 0.15 --sizes 256x1024 --largest 1100000 --against eager,compile,liger \
	    --html out/rivals.html --markdown docs/rivals.md

# Trident's whole suite with every access checked against its tensor's storage; then, as fast code, the compiler's own
# tests and those that look at numbers or speed; then the values in Triton's interpreter, which compiles nothing.
# docs/decisions/024-two-passes.md has the times.
test sanitised: export TRIDENT_CPU_KEEP_TTIR = 1
FAST := $(addprefix --ignore tests/,cpu test_aot.py test_bench.py test_inspect.py)
# files of nothing else than `once`: their imports (torch's samples, FSDP) take as long as to collect all the others
ONCE := $(addprefix --ignore ,$(shell grep -l '^pytestmark = pytest.mark.once$$' tests/*.py))
VALUES := tests/test_laws.py -k "equals_float64 and float32"
test: $(VENV)/ready
	$(MAKE) --jobs 2 lint sanitised
	$(PYTHON) -m pytest -q -n 2 --dist worksteal -m "not once" $(ONCE)
	TRITON_INTERPRET=1 $(PYTHON) -m pytest -q -n 2 --dist worksteal $(VALUES)

sanitised: $(VENV)/ready
	TRIDENT_CPU_SANITIZE=1 $(PYTHON) -m pytest -q -n 2 --dist worksteal -m "not fast" $(FAST)

# The same with every dtype at every shape, every variant of a launch compiled for GPUs: an hour on 2 cores.
test-all: export TRIDENT_TESTS = all
test-all: test

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mkdocs build --strict --quiet --site-dir out/site

# Python compiles what is imported; pip would compile 14,000 files, one after the other, for three quarters of a minute.
PIP := $(PYTHON) -m pip install --quiet --no-compile
# PyTorch's CPU build, from where pip looks already or from PyTorch's own index; not every system has one. What PyPI has for
# Linux brings gigabytes of CUDA, and asks for another Triton than the one that is tested here.
TORCH := $(PIP) $(shell sed -n 's/^torch==.*/&+cpu/p' requirements-dev.txt)
# Liger-Kernel: kernels for tests/cpu/test_liger.py to run. Not in the requirements: its torch and triton are those there.
$(VENV)/ready: requirements-dev.txt pyproject.toml
	python3 -m venv $(VENV)
	$(TORCH) 2>/dev/null || $(TORCH) --index-url https://download.pytorch.org/whl/cpu || true
	$(PIP) --requirement requirements-dev.txt
	$(PIP) --no-deps liger-kernel==0.8.5
	$(PIP) --no-build-isolation --no-deps --editable .
	touch $@
