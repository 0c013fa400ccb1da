# `make` lists the targets. Each sets up .venv first, once.
PYTHON ?= python3
VENV := .venv
SETUP := $(VENV)/.installed
# A stage runs `python`, and experiments run in a folder of their own: both must find this environment.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

# Experiments run in a folder of their own, where a relative path would lead elsewhere.
ifneq ($(PUBMEDQA_SOURCE),)
ifeq ($(findstring ://,$(PUBMEDQA_SOURCE)),)
export PUBMEDQA_SOURCE := $(abspath $(PUBMEDQA_SOURCE))
endif
endif

# How many runs at a time: make runs JOBS=4
JOBS ?= 1
VARIANTS := import pathlib, peftqa.config.params as p; print(*p.read_params(pathlib.Path("params.yaml")).evaluate.variants)

# Whose adapters `make app` asks, and on which port: this workspace's where there are any, else the demonstration's.
IN ?= $(if $(wildcard release),.,experiments/demo)
PORT ?= 7860

# What `make bench` measures on: any folder with a T5 checkpoint, any file like ori_pqal.json.
MODEL ?= models/base
DATA ?= data/raw/ori_pqal.json

.PHONY: help setup check test drill nightly lock format repro runs demo study experiment experiments tune compare app bench

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(SETUP) ## Create .venv and install requirements.txt

$(SETUP): requirements.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "This project needs Python 3.11, 3.12 or 3.13; name one: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is incomplete; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Once, before anything else: all that requirements.txt pins goes into $(VENV)/, most of it torch: 2 GB with a CPU"
	@echo "build of it, over 7 GB with the one that Linux gets by default (README, Set up, has the choice). It takes minutes."
	@$(PYTHON) -m venv $(VENV)
	@# First all that has one content everywhere, by its hashes; then torch, of which machines get different builds.
	$(VENV)/bin/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --disable-pip-version-check -r requirements.txt
	$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	@touch $@

check: $(SETUP) ## The inner loop: style, and the quick unit tests
	ruff check .
	ruff format --check .
	pytest --numprocesses auto --dist loadfile -m "not slow" tests/unit

test: $(SETUP) ## Check the style and run all tests but the drill and the long ones
	ruff check .
	ruff format --check .
	pytest --numprocesses auto --dist loadfile --durations 15 -m "not drill"

drill: $(SETUP) ## Every fault that is known, through the real commands, on two cores in a quarter of an hour
	pytest --numprocesses auto --dist loadfile tests/faults

nightly: $(SETUP) ## The tests that are long by nature: a study of ten folds, a batch system
	pytest tests/long

lock: $(SETUP) ## Renew requirements.lock, the hashes of what requirements.txt pins, torch's aside
	python -m pip install --disable-pip-version-check --quiet uv==0.13.9
	uv pip compile requirements.txt --no-deps --generate-hashes --no-emit-package torch --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.lock

format: $(SETUP) ## Format the code
	ruff check --fix .
	ruff format .

repro: $(SETUP) ## Rebuild everything that params.yaml, the code or the data have changed
	dvc repro

runs: $(SETUP) ## Train and predict what is missing, several runs at a time: make runs JOBS=4
	@python -m experiments.runs --jobs $(JOBS)

demo: $(SETUP) ## The whole experiment offline, on the embedded data and model, in about two minutes
	@python -m experiments demo

study: $(SETUP) ## Ten folds, three seeds, training until it has converged: make study JOBS=2
	@python -m experiments study --jobs $(JOBS)

experiment: $(SETUP) ## One of your own, experiments/NAME.yaml: make experiment NAME=mine JOBS=2
	@python -m experiments $(NAME) --jobs $(JOBS)

tune: $(SETUP) ## Search an adapter's settings on validation alone: make tune ADAPTER=prefix TRIALS=20
	@python -m experiments.tune $(ADAPTER) $(if $(TRIALS),--trials $(TRIALS)) $(if $(NAME),--experiment $(NAME))

experiments: $(SETUP) ## A table of the experiments, lowest validation log loss first
	@python -m experiments.table

compare: $(SETUP) ## Record each variant as an experiment, for `dvc metrics diff base prefix`
	@export GIT_AUTHOR_NAME=pubmedqa-peft GIT_AUTHOR_EMAIL=pubmedqa-peft@localhost; \
	export GIT_COMMITTER_NAME=$$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$$GIT_AUTHOR_EMAIL; \
	for variant in $$(python -c '$(VARIANTS)'); do \
	  dvc exp remove --quiet $$variant 2>/dev/null; \
	  dvc exp run --temp --name $$variant --set-param selected=$$variant select \
	    $$(git ls-files --others --exclude-standard metrics | sed 's/^/--copy-paths /') || exit 1; \
	done
	@echo 'Now, for example: dvc metrics diff base prefix --targets metrics/selected.json'

app: $(SETUP) ## A page on this machine that asks base, prompt and prefix: make app IN=experiments/demo PORT=7860
	@test -d '$(IN)/release' || { echo "There is no $(IN)/release: make demo, or make repro, makes adapters to ask."; exit 1; }
	@python -m peftqa app --port $(PORT) --questions '$(IN)/data/split/fold-0/test.csv' '$(IN)'/release/*

bench: $(SETUP) ## Speed and memory against the usual script, about ten minutes: make bench MODEL=DIR DATA=FILE
	python -m benchmarks.training --model $(MODEL) --data $(DATA) --json benchmarks/latest.json
