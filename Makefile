# make quickstart   the whole way on synthetic garments, in a virtual environment of its own
# make demo         the quickstart, then a page to search its garments by a picture
# make test         the tests, and which lines of the package those that are not slow reach
# make test-fast    those that are not marked slow: under two minutes on two cores
# make test-milvus  those of the index, the service and the page against a Milvus server
# make coverage     the tests, and which lines of the package all of them reach
# make lint         style, formatting, types, layers, dead code
# make lock         pin the versions in setup.py anew

VENV ?= .venv
# The first of these that is a Python TensorFlow 2.15 runs on; override with PYTHON=/path/to/python.
PYTHON ?= $(shell for p in python3 python3.11 python3.10 python3.9 python; do \
	  $$p -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null \
	  && { echo $$p; break; }; done)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# A server in a package, in an environment of its own: no dependency of ours, and Linux only.
MILVUS := .venv-milvus
# A process per core, up to 4: each loads TensorFlow. Files stay whole for what their tests share, and in
# the order of tests/conftest.py, which puts the longest first.
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
  --no-loadscope-reorder

.PHONY: quickstart demo test test-fast test-milvus coverage lint format lock install clean

quickstart: install
	$(BIN)/python tools/run_pipeline.py --flagfile=flags/quickstart.flags

demo: quickstart
	$(BIN)/python tools/build_index.py --run_dir=runs/quickstart
	$(BIN)/python tools/serve_search.py --run_dir=runs/quickstart

test: install
	# Without the slow ones: to trace lines takes half as much processor time again.
	$(PYTEST) -m "not slow" --cov --cov-report=term
	$(PYTEST) -m slow

test-fast: install
	$(PYTEST) -m "not slow"

test-milvus: install $(MILVUS)/installed
	MILVUS_PYTHON=$(CURDIR)/$(MILVUS)/bin/python $(BIN)/python -m pytest -n 0 tests/search

$(MILVUS)/installed:
	$(PYTHON) -m venv $(MILVUS)
	$(MILVUS)/bin/python -m pip install --quiet --disable-pip-version-check milvus==2.3.5
	@touch $@

coverage: install
	$(PYTEST) --cov --cov-report=term

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)

$(INSTALLED): requirements.lock setup.py pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))'; then \
	  echo "apparel_embed needs Python 3.9, 3.10 or 3.11 (TensorFlow 2.15 runs on no other);" \
	       "found: $$( $(or $(PYTHON),python3) --version 2>&1 )." \
	       "Install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lock: install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.9 --all-extras --no-header \
	  --no-emit-index-url --output-file requirements.lock setup.py

clean:
	rm -rf $(VENV) $(MILVUS)
