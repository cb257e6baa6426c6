# make demo   the main job on phantom films, or on yours: EDGECXR_DATA=FOLDER make demo
# make test   every test, on the installed package, in two processes: PYTEST_ARGS="-n 0" for one
# make lint   ruff and mypy
# Each makes .venv and installs what it needs. PYTHON=… chooses the interpreter, PYTEST_ARGS=… is added to pytest.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard pyproject.toml README.md LICENSE) $(shell find edgecxr export kernels runtimes recipes -type f ! -name "*.pyc" ! -name "*.so")

.PHONY: demo test lint format clean

demo: $(VENV)/.demo
	$(BIN)/edgecxr demo

test: $(VENV)/.test
	EDGECXR_TENSORRT_RTX_14="$${EDGECXR_TENSORRT_RTX_14:-$(VENV)/rtx-1.4/bin/python}" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build demo .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(SOURCES) | $(BIN)/python
	@echo "installing PyTorch and the rest into $(VENV): some 6 GB, a few minutes without a word"
	$(BIN)/python -m pip install --quiet ".[train]"
	@touch $@

$(VENV)/.test: $(SOURCES) | $(BIN)/python
	@echo "installing PyTorch and the rest into $(VENV): some 6 GB, a few minutes without a word"
	$(BIN)/python -m pip install --quiet ".[train,bench,dev,node,tensorrt]"
	sh tests/runtimes/without_gpu.sh $(VENV)
	@touch $@ $(VENV)/.demo
