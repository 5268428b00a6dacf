# Each target sets up what it needs in .venv, once, with the versions in constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo quick test lint format docs

demo: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

# A minute of tests: numbers, settings, tables and the house, without training or scripts.
QUICK := tests/test_configs.py tests/test_files.py tests/losses tests/test_metrics.py \
	tests/test_mixing.py tests/test_scheduler.py tests/test_transforms_audio.py \
	tests/test_transforms_image.py tests/catalog tests/settings
quick: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow" $(QUICK)

# A process a core, each with files of its own: fixtures that train are made once a file. The
# longest files go first (tests/conftest.py). Each has one thread: threads of several processes that
# spin for the same cores make training tests ten times as long.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/ as a site, in site/.
docs: $(VENV)/.installed
	$(PIP) --requirement requirements-docs.txt
	$(BIN)/python -m mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/bin/python
	$(PIP) --requirement requirements.txt
	touch $@

$(VENV)/.installed-dev: $(wildcard requirements-*.txt) $(VENV)/.installed
	$(PIP) --requirement requirements-dev.txt
	touch $@
