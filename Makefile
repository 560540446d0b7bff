# Kybern. `make up` brings a cluster up on this machine, `make test` runs all that CI runs; `make help` lists the rest.
SHELL := /bin/bash
# The distribution's interpreter if it is new enough: it is built for speed, and kept secure with the rest of the system.
ifndef PYTHON
PYTHON := $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
            && echo /usr/bin/python3 || echo python3)
endif
VENV := .venv
BIN := $(VENV)/bin
# Both spellings: pip takes the versions for what it builds with from the first or, when it is newer, from the second.
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt \
       PIP_BUILD_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip
# A line per package, so that one sees that it goes on.
SHORT := sed -unE 's/^ *((Collecting|Building|Installing|ERROR|error).{0,80}).*/    \1/p' >&2
PROTO := $(shell find proto -name '*.proto')

.PHONY: help up down test fault-store lint proto bench venv system clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

up: system $(VENV)/.run ## Bring up three masters and two nodes, run an example on them and ask it
	@$(BIN)/kybern-lab demo

down: ## Take the cluster down and remove all that it made
	@if test -x $(BIN)/kybern-lab; then $(BIN)/kybern-lab down; \
	else echo "nothing to do: there is no $(VENV), so nothing was brought up from here"; fi

system:
	@$(PYTHON) lab/system.py run

# What is needed to run, and (second) to develop and test.
$(VENV)/.run: pyproject.toml constraints.txt hatch_build.py $(PROTO)
	@echo "... virtual environment ($(VENV))" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@set -e -o pipefail; began=$$SECONDS; $(PIP) install --editable . 2>&1 | $(SHORT); \
	echo "✓ virtual environment ($$((SECONDS - began)) s)" >&2
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "... tools for development and tests" >&2
	@set -o pipefail; $(PIP) install --editable '.[dev]' 2>&1 | $(SHORT)
	@touch $@

venv: $(VENV)/.dev ## Make the virtual environment

proto: $(VENV)/.dev ## Generate kybern/pb from proto/
	@$(BIN)/python hatch_build.py

lint: $(VENV)/.dev ## Types, style, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# What takes minutes is last, so that what is quick to find fails quickly.
test: ## Everything that CI runs
	@$(PYTHON) lab/system.py run test
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m lab.kubectl
	@$(BIN)/pytest -q tests/unit tests/property
	@$(BIN)/pytest -q tests/integration
	@$(BIN)/pytest -q tests/conformance
	@$(BIN)/pytest -q tests/fault
	@$(BIN)/pytest -q tests/lab
	@KYBERN_TEST_STORE=etcd $(BIN)/pytest -q tests/lab/cluster -k "example_runs or scaling or loss_of_a_leader"

# A seed of its own each time, which it prints, unless one is given. NEMESIS: names of faults, with commas.
fault-store: $(VENV)/.dev ## Faults on a store under load, its answers checked (ROUNDS=n SEED=s NEMESIS=kill-all,...)
	@$(BIN)/python -m tests.fault.store --rounds $(or $(ROUNDS),20) $(if $(SEED),--seed $(SEED)) \
		--nemesis $(or $(NEMESIS),all)

bench: $(VENV)/.dev ## Benchmarks: JSON lines with a ratio against a peer
	@for file in bench/[a-z]*.py; do $(BIN)/python -m bench.$$(basename $$file .py) || exit 1; done

clean: down ## Take the cluster down, and remove what was built
	@rm -rf $(VENV) .kybern kybern/pb .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
