# `make` lists the targets. Each sets up .venv first, once.
PYTHON ?= python3
# An experiment's folder, a clone in experiments/, uses the environment of the repository that it is in.
OUTER := $(patsubst %experiments/clone.py,%,$(firstword $(wildcard ../../experiments/clone.py ../../../experiments/clone.py)))
VENV := $(OUTER).venv
SETUP := $(if $(OUTER),,$(VENV)/.installed)
# A stage runs `python`, and experiments run in a folder of their own: both must find this environment.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

# Experiments run in other folders, from which a relative path would mean another file.
ifneq ($(PUBMEDQA_SOURCE),)
ifeq ($(findstring ://,$(PUBMEDQA_SOURCE))$(filter /%,$(firstword $(PUBMEDQA_SOURCE))),)
export PUBMEDQA_SOURCE := $(CURDIR)/$(PUBMEDQA_SOURCE)
endif
endif

# How many runs at a time: make runs JOBS=4
JOBS ?= 1
# DVC itself only says "object is not iterable" if a parameter should be a list.
CHECK := from peftqa import program; from peftqa.config.params import read_params; program.run(read_params)

# Whose adapters `make app` asks (this workspace's if there are any, else the demonstration's), and its port.
IN ?= $(if $(wildcard release),.,experiments/demo)
PORT ?= 7860

# What `make bench` measures on: any folder with a T5 checkpoint, any file like ori_pqal.json.
MODEL ?= models/base
DATA ?= data/raw/ori_pqal.json

PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check

.PHONY: help setup check test drill nightly lock format repro runs demo study experiment experiments tune compare app bench

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(SETUP) ## Create .venv and install requirements.txt

$(SETUP): requirements.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "This project needs Python 3.11, 3.12 or 3.13; name one: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is incomplete; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Installing requirements.txt in $(VENV)/, only once: 2 GB with a CPU build of torch, over 7 GB with the"
	@echo "build that Linux gets by default (README, Set up, has the choice). It takes minutes."
	@$(PYTHON) -m venv $(VENV)
	@# First the packages that are the same on every machine, by their hashes; then torch, whose build depends on it.
	@echo "1/3 the libraries, by their hashes"
	@$(PIP) --quiet --no-deps --require-hashes -r requirements.lock
	@echo "2/3 torch"
	@$(PIP) $$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)
	@echo "3/3 this package, and a check that all of requirements.txt is there"
	@$(PIP) --quiet -r requirements.txt
	@$(PIP) --quiet --no-deps --editable .
	@touch $@

check: $(SETUP) ## Check the style and run the quick unit tests
	ruff check .
	ruff format --check .
	pytest --numprocesses auto --dist loadfile -m "not slow" tests/unit

test: $(SETUP) ## Check the style and run all tests except the drill and the long ones
	ruff check .
	ruff format --check .
	pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 15 -m "not drill"

drill: $(SETUP) ## Inject every known fault, through the real commands; 15 minutes on two cores
	pytest --numprocesses auto --dist loadfile tests/faults

nightly: $(SETUP) ## The long tests: a study of ten folds, searches, a batch system
	pytest tests/long

lock: $(SETUP) ## Renew requirements.lock: the hashes of all pins in requirements.txt but torch
	python -m pip install --disable-pip-version-check --quiet uv==0.13.9
	uv pip compile requirements.txt --no-deps --generate-hashes --no-emit-package torch --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.lock

format: $(SETUP) ## Format the code
	ruff check --fix .
	ruff format .

repro: $(SETUP) ## Rebuild everything that params.yaml, the code or the data have changed
	@python -c '$(CHECK)'
	dvc repro

runs: $(SETUP) ## Train and predict what is missing, several runs at a time: make runs JOBS=4
	@python -m experiments.runs --jobs $(JOBS)

demo: $(SETUP) ## The whole experiment offline, on the embedded data and model, in about two minutes
	@python -m experiments demo

study: $(SETUP) ## Ten folds, three seeds, training until it has converged: make study JOBS=2
	@python -m experiments study --jobs $(JOBS)

experiment: $(SETUP) ## Run your own experiments/NAME.yaml: make experiment NAME=mine JOBS=2
	@python -m experiments '$(NAME)' --jobs $(JOBS)

tune: $(SETUP) ## Search an adapter's settings on validation alone: make tune ADAPTER=prefix TRIALS=20
	@python -m experiments.tune $(ADAPTER) $(if $(TRIALS),--trials $(TRIALS)) $(if $(NAME),--experiment '$(NAME)')

experiments: $(SETUP) ## A table of the experiments, lowest validation log loss first
	@python -m experiments.table

compare: $(SETUP) ## Record each variant as an experiment, for `dvc metrics diff base prefix`
	@python -m experiments.compare

app: $(SETUP) ## A page on this machine that asks base, prompt and prefix: make app IN=experiments/demo PORT=7860
	@test -d '$(IN)/release' || { echo "$(IN)/release is missing; type make demo, or make repro, to train adapters."; exit 1; }
	@python -m peftqa app --port $(PORT) --questions '$(IN)/data/split/fold-0/test.csv' '$(IN)'/release/*

bench: $(SETUP) ## Speed and memory against benchmarks/baseline.py, ten minutes: make bench MODEL=DIR DATA=FILE
	python -m benchmarks.training --model $(MODEL) --data $(DATA) --json benchmarks/latest.json
