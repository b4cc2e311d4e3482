# `make demo` and `make test` each set up everything they need in .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
METADATA := setup.cfg pyproject.toml constraints.txt

.PHONY: demo test slow slurm clean

demo: .venv/installed
	rm -rf demo
	$(BIN)/tumorreg-simulate demo/bids
	$(BIN)/tumorreg demo/bids demo/derivatives participant -w demo/work
	@echo "Report: $$(ls $(CURDIR)/demo/derivatives/*.html)"

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m pytest

slow: .venv/installed-test
	$(BIN)/python -m pytest -m slow

# as root, on Debian: installs and starts a SLURM of one node
slurm: .venv/installed-test
	$(BIN)/python -m pytest -m slurm -s tests/slurm

.venv/installed: $(METADATA)
	$(PYTHON) -m venv .venv
	@echo 'Installing into .venv, this takes a few minutes'
	$(INSTALL) -e .
	touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) -e '.[test]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build demo dist *.egg-info
