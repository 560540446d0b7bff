# Kybern. `make up` brings a cluster up on this machine, `make test` runs all that CI runs; `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help up down test lint proto bench venv clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt hatch_build.py $(shell find proto -name '*.proto')
	@echo "==> virtual environment ($(VENV))"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

venv: $(VENV)/.installed ## Make the virtual environment

proto: $(VENV)/.installed ## Generate kybern/pb from proto/
	@$(BIN)/python hatch_build.py

lint: $(VENV)/.installed ## Types, style, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# What takes minutes is last, so that what is quick to find fails quickly.
test: lint ## Everything that CI runs
	@$(BIN)/pytest -q tests/unit tests/property
	@$(BIN)/pytest -q tests/integration tests/lab
