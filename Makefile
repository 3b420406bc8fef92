# make demo: the whole experiment on real images. make test: lint, types, all tests.
# make parity: imported weights against PyTorch, which it installs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWER := .venv-lower

.PHONY: demo test lint parity bench test-lower-bounds

demo: $(VENV)/.installed
	$(BIN)/python launch/reproduce.py --config=configs/digits.py --workdir=runs/demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

parity: $(VENV)/.torch
	$(BIN)/python -m pytest tests/test_state_dict.py

bench: $(VENV)/.torch
	$(BIN)/python benchmarks/run.py --out=runs/bench/bench.json

$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.torch: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[torch]'
	touch $@

test-lower-bounds: setup.py constraints-lower.txt
	$(PYTHON) -m venv $(LOWER)
	$(LOWER)/bin/pip install --quiet -c constraints-lower.txt -e '.[dev]'
	$(LOWER)/bin/python -m pytest -W default
