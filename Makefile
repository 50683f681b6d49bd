# The two commands that do all: `make demo` and `make test`. Both make .venv where it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is written when a module is first imported: a fifth of what is installed is ever imported.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test slow gpu lint coverage mutation audit docs clean

demo: $(VENV)/.demo
	@sh demo.sh $(BIN)

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# With every package that it could use. Programs that are missing are named where tests are skipped.
slow: $(VENV)/.slow
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

gpu: $(VENV)/.test
	$(BIN)/python -m pytest -m gpu -n 0 $(PYTEST_ARGS)

# What the hooks of .pre-commit-config.yaml check before a commit.
lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# Lines that the quick tests execute, those of child processes included; too few are an error.
coverage: $(VENV)/.dev
	$(BIN)/python -m pytest --cov --cov-report=term $(PYTEST_ARGS)

# The share of faults that the tests notice, drawn at random: about an hour of CPU time.
mutation: $(VENV)/.dev
	$(BIN)/python -m benchmarks.mutation $(MUTATION_ARGS)

# Asks a service in the network for known holes of the packages that are installed; fails where one was not checked.
AUDIT := $(VENV)/audit
audit: $(VENV)/.dev
	@$(BIN)/python -m pip_audit --progress-spinner off --skip-editable > $(AUDIT).txt 2> $(AUDIT).log; code=$$?; \
	grep -q '^\(Found\|No known\)' $(AUDIT).log || { echo 'audit: no answer, it needs a network: $(AUDIT).log' >&2; exit 1; }; \
	if unknown=$$(grep -c 'could not be audited' $(AUDIT).txt); then \
	  echo "audit: the service does not know $$unknown packages, which were not checked: $(AUDIT).txt" >&2; exit 1; fi; \
	cat $(AUDIT).txt; tail -n 1 $(AUDIT).log; exit $$code

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "open site/index.html"

clean:
	rm -rf $(VENV) demo runs site mutants .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .coverage .coverage.*

# A stamp is written when its install has ended well, so that an interrupted one is taken up again.
$(VENV)/.made:
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	$(INSTALL) .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.made
	$(INSTALL) '.[test]'
	@touch $@ $(VENV)/.demo

# Both at once, which takes less time than one after the other.
$(VENV)/.test-lint: pyproject.toml | $(VENV)/.made
	$(INSTALL) '.[test,lint]'
	@touch $@ $(VENV)/.test $(VENV)/.lint $(VENV)/.demo

$(VENV)/.lint: pyproject.toml | $(VENV)/.made
	$(INSTALL) '.[lint]'
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	$(INSTALL) '.[dev]'
	@touch $@ $(VENV)/.test $(VENV)/.lint $(VENV)/.demo

$(VENV)/.slow: pyproject.toml | $(VENV)/.made
	$(INSTALL) '.[slow]'
	@touch $@ $(VENV)/.test $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(VENV)/.made
	$(INSTALL) '.[docs]'
	@touch $@ $(VENV)/.demo
