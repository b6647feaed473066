# make demo: the main job on the embedded example; make test: the tests. Both make the environment .venv if need be.
PYTHON ?= python3
BIN := .venv/bin
TESTS ?= tests
# Processes of the tests; 0 for none but the first.
WORKERS ?= 2

.PHONY: help demo test test-slow lint bench

help:
	@sed -n '/^# make/s/^# //p' Makefile

.venv/runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/dev: .venv/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,cluster]'
	touch $@

# Results are in demo-out/.
demo: .venv/runtime
	$(BIN)/voxray demo -o demo-out --overwrite

test: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadgroup $(TESTS)

# All tests, the long ones and more examples of each property: some ten minutes or more.
test-slow: .venv/dev
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=nightly $(BIN)/pytest -n $(WORKERS) --dist loadgroup -m 'slow or not slow' $(TESTS)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bench: .venv/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt itk-rtk roma torchio platformdirs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps nanodrr
	touch $@

# Beside the peers; about a quarter of an hour.
bench: .venv/bench
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done
