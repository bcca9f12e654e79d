# `make` alone lists what can be done. Needs python >= 3.11 with pip, make and git; no Docker, no Java, no Maven.
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The newest Python from 3.11 on that really runs (a shim on the PATH may name a version that is not installed).
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow test-oldest test-fast lint format lock ledger mutants bench clean

help:  ## list the targets
	@while IFS= read -r line; do case "$$line" in [a-z]*:*\#\#\ *) \
		printf '  make %-11s %s\n' "$${line%%:*}" "$${line##*\#\# }";; esac; done < Makefile

venv: $(STAMP)  ## create .venv with the locked packages and this project (again only when they change)

$(STAMP): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 with venv on the PATH: install one, or run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: venv  ## the whole story on real input, with a real Kafka that it starts itself
	@$(BIN)/processor demo $(ARGS)

test: lint  ## lint, types, layers, then all tests but the slow ones (starts its own Kafka)
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-slow: venv  ## the tests that take many seconds each: brokers killed, long outages
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(ARGS)

test-oldest: venv  ## the broker's conformance suite on the oldest Kafka that is supported
	@PROCESSOR_TEST_KAFKA=4.0.2 $(BIN)/python -m pytest -n 2 --dist worksteal tests/contract $(ARGS)

test-fast: venv  ## the tests that need no broker
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not kafka" $(ARGS)

lint: venv  ## ruff, mypy --strict, the import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: venv  ## let ruff repair and format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: venv  ## resolve requirements.lock anew (needs uv, in the venv only)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements.lock

ledger: venv  ## 20,000 jobs of which many fail, with workers killed and the broker restarted; then a redrive
	@$(BIN)/python -m tests.ledger $(ARGS)

mutants: venv  ## break each rule of the design in turn: does the test that bears its name notice?
	@$(BIN)/python -m tests.mutants $(ARGS)

bench: venv  ## measure, on a real Kafka that it starts itself
	@$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove the venv and everything built or cached here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
