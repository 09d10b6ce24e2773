# make quickstart   runs every stage on synthetic garments, in its own virtual environment
# make small        the same with three verticals and few steps, to see it work
# make demo         the quickstart, then a page to search its garments by image
# make street       street scenes: unified model and detector of the garments in a photograph
# make demo-street  that, then a page to search every garment in a photograph
# make test         runs all tests, the fast ones first
# make test-fast    runs the tests not marked slow: under two minutes on two cores
# make test-milvus  runs the tests of the index, the service and the page against a Milvus server
# make coverage     runs all tests and reports which lines of the package they cover
# make lint         checks style, formatting, types, layers, dead code
# make docs         builds the site of docs/ in site/index.html; a broken link fails
# make lock         pins the versions for setup.py again

VENV ?= .venv
SUPPORTED := import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 13))
# The first supported Python of these; override with PYTHON=/path/to/python.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python3.9 python; do \
	  $$p -c '$(SUPPORTED)' 2>/dev/null && { echo $$p; break; }; done)
# GPU=1 also installs the CUDA libraries of that TensorFlow, some GB.
GPU ?=
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# A server in a package, for Linux only. It has its own environment because it is not a dependency.
MILVUS := .venv-milvus
MILVUS_TESTS ?= tests/search
# One process per core, up to 4, because each loads TensorFlow. A file's tests run in one process, since they
# share fixtures, in the order of tests/conftest.py, which puts the longest files first.
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
  --no-loadscope-reorder

.PHONY: quickstart small demo street demo-street test test-fast test-milvus coverage lint docs format lock install clean

quickstart: install
	$(BIN)/python tools/run_pipeline.py --flagfile=flags/quickstart.flags

small: install
	$(BIN)/python tools/run_pipeline.py --flagfile=flags/quickstart.flags --run_dir=runs/small \
	  --synthetic_verticals=dress,bag,eyewear --synthetic_train_items=60 --synthetic_val_items=20 \
	  --synthetic_unlabelled_items=0 --combined_steps=250 --specialist_steps=30 --student_steps=600

demo: quickstart
	$(BIN)/python tools/build_index.py --run_dir=runs/quickstart
	$(BIN)/python tools/serve_search.py --run_dir=runs/quickstart

street: install
	$(BIN)/python tools/run_pipeline.py --flagfile=flags/street.flags

demo-street: street
	$(BIN)/python tools/build_index.py --run_dir=runs/street
	$(BIN)/python tools/serve_search.py --run_dir=runs/street

test: install
		# The fast tests first: they find most mistakes. Without coverage, which takes half as long again.
	$(PYTEST) -m "not slow"
	$(PYTEST) -m slow

test-fast: install
	$(PYTEST) -m "not slow"

test-milvus: install $(MILVUS)/installed
	MILVUS_PYTHON=$(CURDIR)/$(MILVUS)/bin/python $(BIN)/python -m pytest -n 0 $(MILVUS_TESTS)

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

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)

$(INSTALLED): requirements.lock setup.py pyproject.toml
	@if [ -x $(BIN)/python ] && [ -n "$(PYTHON)" ] && \
	    [ "$$($(PYTHON) -V)" != "$$($(BIN)/python -V)" ]; then \
	  echo "$(VENV) was made with $$($(BIN)/python -V), but PYTHON=$(PYTHON) is $$($(PYTHON) -V)." \
	       "Name another directory (make VENV=.venv-other ...) or remove it first (make clean)." >&2; \
	  exit 1; \
	elif [ -n "$(PYTHON)" ] && $(PYTHON) -c '$(SUPPORTED)'; then $(PYTHON) -m venv $(VENV); \
	elif [ -z "$(PYTHON)" ] && command -v uv > /dev/null; then uv venv --seed --python 3.12 $(VENV); \
	else \
	  echo "apparel_embed expected Python 3.9 to 3.13, got $$($(or $(PYTHON),python3) -V 2>&1)." \
	       "Name one (make PYTHON=/path/to/python3.12), or get one: install uv" \
	       "(https://docs.astral.sh/uv), run 'uv python install 3.12', then 'make install' again." >&2; \
	  exit 1; \
	fi
	@echo "Installing requirements.lock into $(VENV), about 3 GB: this takes minutes."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(if $(GPU),$(BIN)/python -m pip install --quiet -c requirements.lock -e ".[gpu]")
	@touch $@

lock: install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.9 --no-header --no-emit-index-url \
	  $(addprefix --extra ,serving search milvus cluster dev docs) --output-file requirements.lock setup.py

clean:
	rm -rf $(VENV) $(MILVUS) site
