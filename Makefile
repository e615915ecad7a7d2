# `make help` lists what there is. Each target does only what is still to do.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
AT_ONCE ?= 2
LAB_ARGS ?=
BIN := $(VENV)/bin
# The bindings come without a library of their own: they load the one that the tools use.
PIP_INSTALL = CMAKE_ARGS=-DLLAMA_BUILD=OFF $(BIN)/python -m pip install -qq \
	--disable-pip-version-check $(PIP_FROM) -c constraints.txt
# Two at a time, a file in one of them, with a thread each: with more, each would wait for cores
# that the other holds. Those of the book need the book.
TESTS := qwqlab tests --ignore=tests/book -n 2 --dist loadfile
BOOK := $(CURDIR)/build/book
# The tests run the notebooks with fewer samples in their longest cells, and keep your book.
SHORT_BOOK := $(CURDIR)/build/short-book
TEST_LENGTH := short
FEWER := -m "not nightly"
ONE_THREAD := LLAMA_ARG_THREADS=1 OMP_NUM_THREADS=1
# The kernel of this environment, whatever kernels the user has installed elsewhere.
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_CONFIG_PATH := $(CURDIR)/jupyter

# A kernel runs in notebooks/, where a path that was given here would name another file.
ifneq ($(wildcard $(QWQLAB_MODEL)),)
export QWQLAB_MODEL := $(abspath $(QWQLAB_MODEL))
endif

# A folder of `make offline`: pip sees it alone, whatever the user has set.
ifneq ($(OFFLINE),)
unexport $(filter PIP_%,$(.VARIABLES)) PYTHONPATH PYTHONHOME
export PIP_CONFIG_FILE := /dev/null
export PIP_NO_INDEX := 1
PIP_FROM := --no-index --find-links "$(OFFLINE)/wheels"
endif

.PHONY: help setup from-folder offline lab reproduce test test-all coverage book pictures check benchmark
.PHONY: gpu clean
.NOTPARALLEL:

help:
	@echo "make lab        set up what is missing and open JupyterLab (LAB_ARGS=... goes to it)"
	@echo "make reproduce  set up, then run the experiment and write its report (ARGS=--quick)"
	@echo "make test       set up, check, then every test and every notebook (ARGS=... for pytest)"
	@echo "make test-all   the same, with the tests that are slow and seldom fail"
	@echo "make book       run every notebook and make pages of them, to read without running"
	@echo "                (two at a time; AT_ONCE=1 measures what each takes alone)"
	@echo "make pictures   draw the README's pictures from the last book"
	@echo "make coverage   which lines the tests run, as a table (ARGS=... for pytest)"
	@echo "make check      lint, format, types and the form of the notebooks, in seconds"
	@echo "make benchmark  the lab against llama.cpp's own programs: build the server, then 20 min"
	@echo "make gpu        one report on a graphics card: tests, notebooks, speed, the article's table"
	@echo "                (ARGS=--stand-in runs it without a card)"
	@echo "make setup      set up only: about 6 min on two cores, once (with CUDA far longer;"
	@echo "                not measured here)"
	@echo "make offline    fill FOLDER=... with all that machines without a network are set up from"
	@echo "make clean      remove what the set-up made; models and runs stay in build/"
	@echo "PYTHON=python3.12 names another Python; VENV=... uses another environment;"
	@echo "OFFLINE=... sets up from a folder of make offline, with no network."

setup: $(if $(OFFLINE),from-folder) $(VENV)/.qwqlab
	@$(BIN)/python -m qwqlab.llamacpp.tools
	@$(BIN)/qwqlab fetch smollm2-135m
	@$(BIN)/qwqlab fetch qwq-32b-ranks

# The hashes find what a copy or a stick has damaged; they are no signature.
from-folder:
	@$(PYTHON) qwqlab/preflight.py
	@echo "Checking the hashes of $(OFFLINE) ..."
	@cd "$(OFFLINE)" && $$(command -v sha256sum || echo shasum -a 256) --check --quiet SHA256SUMS
	@mkdir -p "$${QWQLAB_HOME:-.}/build" && cp -R "$(OFFLINE)/build/." "$${QWQLAB_HOME:-.}/build/"

offline: setup
	@$(BIN)/qwqlab offline "$(FOLDER)" --extras="$(EXTRAS)" --pythons="$(PYTHONS)"

# unsloth trains on a GPU; where there is none, or no network to bring it, peft does.
lab: setup
	@if nvidia-smi -L >/dev/null 2>&1; then $(MAKE) --no-print-directory $(VENV)/.qwqlab-unsloth \
		|| echo "unsloth is not here: peft trains in its place (README, Fine-tuning)."; fi
	@echo "Starting JupyterLab (5 s; Ctrl-C ends it) ..."
	@$(BIN)/jupyter lab notebooks/00_start_here.ipynb $(LAB_ARGS)

reproduce: setup
	@$(BIN)/qwqlab reproduce $(ARGS)

test: check setup
	@$(ONE_THREAD) $(BIN)/python -m pytest $(TESTS) $(FEWER) $(ARGS)
	@$(MAKE) --no-print-directory book BOOK="$(SHORT_BOOK)" LENGTH=$(TEST_LENGTH)
	@QWQLAB_BOOK="$(SHORT_BOOK)" $(BIN)/python -m pytest tests/book $(FEWER) $(ARGS)

test-all: FEWER :=
test-all: TEST_LENGTH :=
test-all: test

# The numbers of the notebooks' text are the small model's, whatever else is on this machine.
book: export QWQLAB_MODEL ?= smollm2-135m
book: setup $(VENV)/.qwqlab-dev
	@QWQLAB_BOOK="$(BOOK)" $(BIN)/python docs/make_book.py write $(AT_ONCE) $(LENGTH)
	@QWQLAB_PROGRESS="$(BOOK)/progress" $(BIN)/python -m pytest --nbmake --overwrite "@$(BOOK)/order"
	@QWQLAB_BOOK="$(BOOK)" $(BIN)/python docs/make_book.py bind

pictures: $(VENV)/.qwqlab-dev
	@$(BIN)/python docs/make_pictures.py

# Shown, no bar to be cleared. Notebooks are left out: their kernels would double the time.
coverage: setup $(VENV)/.qwqlab-dev
	@mkdir -p build/coverage && rm -f build/coverage/data*
	@$(ONE_THREAD) $(BIN)/coverage run -m pytest -q $(TESTS) $(ARGS); ended=$$?; \
	$(BIN)/coverage combine -q && $(BIN)/coverage report && exit $$ended

check: $(VENV)/.qwqlab-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python tests/check_notebooks.py

benchmark: setup $(VENV)/.qwqlab-dev
	@$(BIN)/python -m qwqlab.llamacpp.tools llama-server
	@$(BIN)/python benchmarks/speed.py
	@$(BIN)/python benchmarks/redraw.py
	@$(BIN)/python benchmarks/quantize.py
	@$(BIN)/python benchmarks/finetune.py

gpu: setup $(VENV)/.qwqlab-dev
	@if nvidia-smi -L >/dev/null 2>&1; then $(MAKE) --no-print-directory $(VENV)/.qwqlab-unsloth; fi
	@$(BIN)/python benchmarks/gpu.py $(ARGS)

clean:
	rm -rf .venv .ruff_cache .mypy_cache .pytest_cache build/llama.cpp* build/llama_cpp_python*

$(VENV)/.qwqlab: pyproject.toml constraints.txt
	@$(PYTHON) qwqlab/preflight.py
	@echo "Installing Python packages into $(VENV) (3 min, 2 GB, in silence) ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_FROM) "pip>=24"
	@$(PIP_INSTALL) -e ".[train]"
	@touch $@

$(VENV)/.qwqlab-unsloth: $(VENV)/.qwqlab
	@echo "Installing unsloth into $(VENV), for the GPU (3 min, 6 GB) ..."
	@$(PIP_INSTALL) -e ".[train,unsloth]"
	@touch $@

$(VENV)/.qwqlab-dev: $(VENV)/.qwqlab
	@echo "Installing the tools for tests and checks into $(VENV) (30 s) ..."
	@$(PIP_INSTALL) -e ".[train,dev]"
	@touch $@
