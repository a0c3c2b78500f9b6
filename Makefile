# Everything happens in .venv; `make quickstart` and `make test` set it up themselves.

PYTHON ?= python3.11
BIN := .venv/bin
# What test-lowest runs, and with what. These tests use every package.
LOWEST_TESTS := tests/config/test_recipes.py tests/data/test_datasets.py tests/models/test_export.py \
	tests/models/hostile tests/runs/test_zoo.py tests/tasks/test_pretrain.py tests/inference/test_embeddings.py \
	tests/tui/test_history.py tests/tui/test_app.py::test_filter_marks_and_pins
LOWEST_TOOLS := pytest pytest-asyncio pytest-xdist hypothesis

.PHONY: quickstart test test-long test-lowest test-slow soak mutants lint docs wheel-check lock lock-lowest clean

quickstart: .venv/.installed
	$(BIN)/rotnet-keras run quickstart

test: .venv/.installed-dev
	$(BIN)/pytest -m "not slow and not long" -n 2 --dist loadgroup

# Whole runs: trainings that are stopped, resumed, transferred and exported.
test-long: .venv/.installed-dev build/keras-3.8/.installed
	$(BIN)/pytest -m long -n 2 --dist loadgroup

# A selection of the tests, with the lowest versions that pyproject.toml allows.
test-lowest: build/lowest/.installed
	build/lowest/bin/pytest -m "not slow and not long" -n 2 --dist loadgroup -p no:cacheprovider $(LOWEST_TESTS)

test-slow: .venv/.installed-dev
	$(BIN)/pytest -m slow

# Tries for more than an hour to break what the README promises.
soak: .venv/.installed-dev
	PYTHONPATH=tests $(BIN)/python -m soak --output results/reliability.md

# Breaks the code on purpose, promise by promise, and sees whether the named test notices; some twenty minutes.
mutants: .venv/.installed-dev
	$(BIN)/python scripts/mutants.py

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file scripts/mypy.ini scripts
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

# Write the versions of a fresh environment of the lowest allowed versions to constraints-lowest.txt.
lock-lowest:
	rm -rf build/lowest && $(PYTHON) -m venv build/lowest
	$(PYTHON) scripts/lowest_versions.py > build/lowest-versions.txt
	build/lowest/bin/pip install --quiet --requirement build/lowest-versions.txt $(LOWEST_TOOLS)
	build/lowest/bin/pip freeze --exclude rotnet-keras > constraints-lowest.txt

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

build/lowest/.installed: pyproject.toml constraints-lowest.txt Makefile
	rm -rf build/lowest && $(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable . $(LOWEST_TOOLS)
	touch $@

# The oldest Keras that exports are tried in, on the TensorFlow of .venv.
build/keras-3.8/.installed: | .venv/bin/python
	rm -rf build/keras-3.8
	$(BIN)/python -m pip install --quiet --no-deps --target build/keras-3.8 keras==3.8.0
	touch $@
