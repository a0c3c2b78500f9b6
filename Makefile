# Everything happens in .venv; `make quickstart` and `make test` set it up themselves.

PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: quickstart test test-slow soak mutants lint docs wheel-check lock clean

quickstart: .venv/.installed
	$(BIN)/rotnet-keras run quickstart

test: .venv/.installed-dev
	$(BIN)/pytest -m "not slow" -n 2 --dist loadgroup

test-slow: .venv/.installed-dev
	$(BIN)/pytest -m slow

# Tries for most of an hour to break what the README promises.
soak: .venv/.installed-dev
	PYTHONPATH=tests $(BIN)/python -m soak --output results/reliability.md

# Breaks the code on purpose, promise by promise, and sees whether the named test notices; some ten minutes.
mutants: .venv/.installed-dev
	$(BIN)/python scripts/mutants.py

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site, in build/site; any warning is an error.
docs: .venv/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir build/site

# Build the wheel and run it where nothing of the checkout is seen.
wheel-check: .venv/.installed-dev
	scripts/check_wheel.sh

# Write the versions of a fresh environment to constraints.txt.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --upgrade '.[dev]'
	build/lock/bin/pip freeze --exclude rotnet-keras > constraints.txt

clean:
	rm -rf .venv build dist

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch .venv/.installed $@
