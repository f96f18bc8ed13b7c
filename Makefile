# `make demo` and `make test` need nothing but python3 (3.11 or later) and pip.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
# each process of the tests would compile dbops anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick faults check bench clean

demo: .venv/installed
	./demo

# Everything: style, types, the import rule, all tests; the long fault runs by a seeded sample.
test: check
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -q

# The part under a minute: no server.
quick: .venv/installed
	$(BIN)/pytest -q -m quick tests/unit

# The fault runs whole, and the property tests with examples of their own.
faults: .venv/installed
	DBOPS_TEST_FAULTS=whole $(BIN)/pytest -n $(WORKERS) --dist worksteal -q tests/faults
	DBOPS_TEST_FAULTS=whole $(BIN)/pytest -n $(WORKERS) --dist worksteal -q -m hypothesis tests

check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/ruff format --check --quiet
	$(BIN)/lint-imports

bench: .venv/installed
	$(BIN)/python benchmarks/migrate.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .dbops .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
