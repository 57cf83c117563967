# Two commands set everything up: `make demo` and `make test`. Each installs what it needs into
# .venv the first time; nothing outside this folder is touched but Tunedeck's own state folder.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CPUS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow testbed check lint types contracts coldstart bench constraints clean

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.train ## Fine-tune an adapter on this machine's CPU, offline, then merge it
	$(BIN)/tunedeck steps run peft/automodel -c tiny --name demo
	$(BIN)/tunedeck steps run convert/merge_lora -c tiny --from demo --name demo-merged

test: $(VENV)/.dev ## The fast tests: under five minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CPUS) --dist worksteal -m "not slow" -q

test-slow: $(VENV)/.dev ## The slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CPUS) --dist worksteal -m slow -q --timeout 900

testbed: $(VENV)/.dev ## A Slurm cluster of two nodes behind an sshd, on this machine, to try things on
	$(BIN)/python -m tests.system.testbed

check: lint types contracts coldstart ## Everything that looks at the code without running a test

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

coldstart: $(VENV)/.dev
	$(BIN)/python -m pytest -q tests/test_cold_start.py

bench: $(VENV)/.dev ## Side by side with peers; prints ratios
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/env_check.py
	$(BIN)/python benchmarks/wizard.py
	$(BIN)/python benchmarks/trainer_vs_trl.py

constraints: $(VENV)/.dev
	{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --all --exclude-editable | grep -v -e ' @ ' -e '^pip==' | sed 's/+cpu//' | sort -f; } > constraints.tmp
	mv constraints.tmp constraints.txt

clean: ## Remove the virtual environment and build leftovers; runs are kept
	rm -rf $(VENV) build dist src/*.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Tunedeck needs Python 3.11 or newer; '$(PYTHON)' is older, or is not there. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2> /dev/null || { \
	  echo "'$(PYTHON)' makes no virtual environments. On Debian and Ubuntu: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# setuptools builds the editable install in this environment, so that the pinned one is used.
$(VENV)/.train: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing Tunedeck and its trainer into $(VENV) (a few minutes the first time) …"
	$(PIP) install 'pip>=25.1'
	$(PIP) install -c constraints.txt 'setuptools>=77' wheel
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	$(PIP) install -c constraints.txt --group dev
	@touch $@
