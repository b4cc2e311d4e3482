# Each target sets up everything it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
METADATA := setup.cfg pyproject.toml constraints.txt

FUZZED := images descriptions filters tables groups weights plugins

.PHONY: demo test slow matrix slurm container faults fuzz audit bench docs dist clean

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

# one patient stored in many ways: orientation, voxel size, number type, images there are
matrix: .venv/installed-test
	$(BIN)/python -m pytest -m matrix tests/input

# as root, on Debian: installs and starts a SLURM of one node
slurm: .venv/installed-test
	$(BIN)/python -m pytest -m slurm -s tests/slurm

# ENGINE: docker, or what takes the same arguments; BUILD: more options of the build. See docs/containers.md
container:
	ENGINE='$(ENGINE)' tests/container.sh $(BUILD)

# breaks real runs in every way docs/faults.md lists; root mounts the disks for some
faults: .venv/installed-test
	$(BIN)/python -m pytest -m faults tests/faults

# ten minutes for each kind of file
fuzz: .venv/installed-test
	for target in $(FUZZED); do $(BIN)/python tests/fuzz/fuzz.py $$target || exit; done

# known vulnerabilities of what constraints.txt pins; asks the package index, so it needs the network
audit: .venv/installed-dev
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

# the short form; benchmarks/README.md has the long ones
bench: .venv/installed
	rm -rf bench
	$(BIN)/tumorreg-simulate bench/bids
	$(BIN)/python benchmarks/engines.py bench/bids bench/results greedy_sloppy greedy syn_sloppy syn

# Warnings are errors.
docs: .venv/installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build
	@echo "Documentation: $(CURDIR)/docs/_build/index.html"

dist: .venv/installed-dev
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

.venv/installed: $(METADATA)
	$(PYTHON) -m venv .venv
	@echo 'Installing into .venv, this takes a few minutes'
	$(INSTALL) -e .
	touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) -e '.[test]'
	touch $@

.venv/installed-docs: .venv/installed
	$(INSTALL) -e '.[docs]'
	touch $@

.venv/installed-dev: .venv/installed
	$(INSTALL) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build bench demo dist docs/_build docs/_made *.egg-info
