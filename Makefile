# make demo: the whole experiment on real images. make test: lint, types, all tests.
# make test-lower-bounds, make test-latest: all tests with the oldest packages that
# setup.py admits, and with the newest ones on the newest Python here.
# make parity: imported weights against PyTorch, which it installs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWER := .venv-lower
LATEST := .venv-latest
# The newest Python that runs: on PATH, where a shim may lead nowhere, or pyenv's.
LATEST_PYTHON ?= $(shell for minor in 14 13 12; do \
  for found in python3.$$minor $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.$$minor.*/bin/python; do \
    $$found -c 'import ensurepip' 2>/dev/null && echo $$found && exit; done; done)
# Tests that measure wall-clock time run alone, after all others.
# So do those that start a server, which takes all cores.
suite = $(1) -m pytest -n 2 --dist worksteal -m 'not alone and not serve' $(2) && \
  $(1) -m pytest -m 'alone or serve' $(2)

.PHONY: demo serve test lint litellm parity bench test-lower-bounds test-latest

demo: $(VENV)/.installed
	$(BIN)/python launch/reproduce.py --config=configs/digits.py --workdir=runs/demo

# The demo's zoo by HTTP, until Ctrl-C; SERVE has flags, see launch/serve.py.
serve: $(VENV)/.serve
	$(BIN)/python launch/serve.py --workdir=runs/demo $(SERVE)

test: lint
	$(call suite,$(BIN)/python)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

parity: $(VENV)/.torch
	$(BIN)/python -m pytest tests/test_state_dict.py

# In an environment of its own, for LiteLLM wants older packages than constraints.txt.
litellm: setup.py
	$(PYTHON) -m venv .venv-litellm
	.venv-litellm/bin/pip install --quiet -e '.[dev,litellm]'
	.venv-litellm/bin/python -m pytest tests/test_serving_litellm.py

bench: $(VENV)/.torch
	$(BIN)/python benchmarks/run.py --out=runs/bench/bench.json

$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.serve: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[serve]'
	touch $@

$(VENV)/.torch: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[torch]'
	touch $@

test-lower-bounds: setup.py constraints-lower.txt
	$(PYTHON) -m venv $(LOWER)
	$(LOWER)/bin/pip install --quiet -c constraints-lower.txt -e '.[dev]'
	$(call suite,$(LOWER)/bin/python,-W default)

test-latest: setup.py
	@test '$(LATEST_PYTHON)' || echo 'No Python from 3.12 on runs here; $(PYTHON) it is.'
	$(or $(LATEST_PYTHON),$(PYTHON)) -m venv --clear $(LATEST)
	$(LATEST)/bin/pip install --quiet -U -e '.[dev]'
	$(call suite,$(LATEST)/bin/python)
