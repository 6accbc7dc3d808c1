# Every NAME=value of the command line goes to the script: make train FOLD=0 LR=3e-4. Typos are refused there, with the nearest name.
# An environment of your own (Kaggle, Colab, conda): make train VENV= PYTHON=python

SHELL := /bin/bash
VENV := .venv
ifneq ($(VENV),)
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.installed
endif
# the first of these that runs and is new enough; asked only when .venv is made
NEW_PYTHON = $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && command -v $$p && break; done)

# 'NAME=value' for each variable that the command line set; the quotes keep spaces and $ as they were typed
quoted = '$(subst ','\'',$(1)=$(value $(1)))'
GIVEN = $(foreach name,$(.VARIABLES),$(if $(filter command%line,$(subst $() ,%,$(origin $(name)))),$(name)))
ARGS = $(foreach name,$(filter-out VENV PYTHON,$(GIVEN)),$(call quoted,$(name)))
RUN = $(PYTHON) src/$@.py $(ARGS)

.PHONY: help demo data rle-check doctor folds train reproduce tester oof cv search tune ensemble compare leaderboard report inference pseudo merge submission kernel kernel-rehearsal kernel-push kernel-fetch onnx hub samples summary lr batch smoke weights test test-main test-slow lint bench audit install

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name text; do printf '  make %-16s %s\n' "$$name" "$$text"; done

install: $(READY)  ## create .venv from requirements.txt (the other targets do it by themselves)

$(VENV)/.installed: requirements.txt
	@echo "Installing requirements.txt into $(VENV): about 5 GB, some minutes"
	@test -n "$(NEW_PYTHON)" || { echo "error: found no Python 3.11 to 3.13 (python3.11, python3.12, python3.13, python3)" >&2; exit 2; }
	@test -x $(VENV)/bin/python || $(NEW_PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

demo: $(READY)  ## render the demo's data and walk the whole path on it: the first command to type (LAYOUT=name: another layout)
	@$(RUN)

data: $(READY)  ## unpack a competition's archive into input/<dataset>/: make data ZIP=file (or COMPETITION=slug)
	@$(PYTHON) src/fetch.py $(ARGS)

rle-check: $(READY)  ## one training mask of a table of run lengths, decoded in each order: which is right?
	@$(PYTHON) src/doctor.py rle-check $(ARGS)

doctor: $(READY)  ## before the night: everything that could stop it, in one line a check (QUICK=1: of a sample)
	@$(RUN)

folds: $(READY)  ## images and masks -> output/<dataset>/train_folds.csv, checked for leaks
	@$(RUN)

train: $(READY)  ## train one fold: make train FOLD=0 (or FOLD=full: every image)
	@$(RUN)

reproduce: $(READY)  ## train a run again from its folder, and compare: make reproduce RUN=lightning_logs/demo/fold0_seed42
	@$(RUN)

tester: $(READY)  ## score one fold's held-out masks: make tester FOLD=0
	@$(RUN)

oof: $(READY)  ## score all tested folds together, each image exactly once
	@$(PYTHON) src/tester.py OOF=1 $(ARGS)

cv: $(READY)  ## train and test every fold, one process each, then oof: make cv EXPERIMENT=a,b SEEDS=0,1,2 (RAY=auto, SLURM=1)
	@$(RUN)

search: $(READY)  ## try what a recipe's [search] section names, then cross-validate the winner: make search RECIPE=x TRIALS=20
	@$(RUN)

tune: $(READY)  ## the best rule from probability to mask, with an honest (cross-fitted) score
	@$(RUN)

ensemble: $(READY)  ## the mean of experiments or seeds: make ensemble OF=a,b NAME=c (WEIGHTED=1: cross-fitted weights)
	@$(RUN)

compare: $(READY)  ## is y better than x? make compare A=x B=y
	@$(RUN)

leaderboard: $(READY)  ## all experiments, by their cross-fitted scores
	@$(RUN)

report: $(READY)  ## one HTML file about an experiment: make report EXPERIMENT=x
	@$(RUN)

inference: $(READY)  ## test images -> probability maps, by one fold or the mean of several
	@$(RUN)

pseudo: $(READY)  ## confident test predictions -> rows to train on, each for the fold that made it: make pseudo EXPERIMENT=x
	@$(RUN)

merge: $(READY)  ## the parts of make inference SHARD=i/n -> one prediction folder
	@$(PYTHON) src/inference.py merge $(ARGS)

submission: $(READY)  ## probability maps -> submission.csv, checked
	@$(RUN)

kernel: $(READY)  ## an experiment as a Kaggle notebook that needs no internet (TRAIN=1 FOLD=0: one that trains)
	@$(PYTHON) src/kaggle_kernel.py $(ARGS)

kernel-rehearsal: $(READY)  ## run that notebook here as Kaggle would, without a network, and compare its submission
	@$(PYTHON) src/kaggle_kernel.py rehearsal $(ARGS)

kernel-push: $(READY)  ## upload it by Kaggle's client
	@$(PYTHON) src/kaggle_kernel.py push $(ARGS)

kernel-fetch: $(READY)  ## the fold that a kernel trained -> lightning_logs/
	@$(PYTHON) src/kaggle_kernel.py fetch $(ARGS)

onnx: $(READY)  ## one ONNX file, by one fold or the mean of several, checked against torch on real images
	@$(PYTHON) src/export.py $(ARGS)

hub: $(READY)  ## a fold in smp's own form, with a model card that carries its scores: make hub FOLD=0
	@$(PYTHON) src/export.py hub $(ARGS)

samples: $(READY)  ## a picture of what the network gets, before and after augmentation
	@$(PYTHON) src/preview.py $(ARGS)

lr: $(READY)  ## the learning rate finder: a curve and a suggestion: make lr FOLD=0
	@$(PYTHON) src/find_lr.py $(ARGS)

batch: $(READY)  ## the largest TRAIN_BATCH_SIZE that a GPU holds
	@$(PYTHON) src/doctor.py batch $(ARGS)

summary: $(READY)  ## layers, parameters and multiply-adds of the network
	@$(PYTHON) src/preview.py summary $(ARGS)

smoke: $(READY)  ## two batches of everything, in folders of its own: does it run at all?
	@$(PYTHON) src/demo.py smoke $(ARGS)

weights: $(READY)  ## pack the encoder's ImageNet weights for working offline
	@$(PYTHON) src/fetch.py weights $(ARGS)

# three processes, forked from one that has done the imports (tests/forked.py); whole files go to one of them
TESTS = $(PYTHON) -m pytest --tx '3*popen//python=$(PYTHON) -I -S tests/forked.py' --dist loadfile --no-loadscope-reorder

test: $(READY)  ## the tests
	@$(TESTS) -m "not slow"

test-main: $(READY)  ## the main path and what matters most, in a minute: what is marked main
	@$(TESTS) -m main $$(grep -rl --include='test_*.py' 'mark\.main' tests)

test-slow: $(READY)  ## the tests that take long
	@$(PYTHON) -m pytest -m slow

bench: $(READY)  ## how fast it is, beside the plain way and the limit: a table, in nine to ten minutes
	@$(PYTHON) benchmarks/bench.py $(ARGS)

audit: $(READY)  ## known vulnerabilities of the installed packages, as a report
	@$(PYTHON) .ci/audit.py

lint: $(READY)  ## ruff, and the types of src/ by mypy
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) -m mypy
