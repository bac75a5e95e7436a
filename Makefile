# make demo   install, train a small world of known truth, audit every suspect in it
# make test   install, run the tests in two processes (style, import contracts and house rules are tests too; types are in make lint)
# make test-thorough   tests of seconds that the default run leaves out: half an hour
# make test-all   the thorough and the slow tests too: hours
# make mutants   hours: which small changes of a sample do the tests notice? Goes on where it was stopped; ARGS="stats --show"
# make docs   the documentation as a site in build/docs, strictly: a broken link or heading is an error
# make lint   style, types and import contracts alone
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WORKERS ?= 2
CONSTRAINTS ?= -c constraints.txt
STAMP := $(VENV)/.installed

# Two processes with many threads each fight for a small machine's cores; the work is shared out over processes instead.
export OMP_NUM_THREADS ?= 1

.PHONY: install demo test test-thorough test-all docs mutants lint clean
install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check $(CONSTRAINTS) -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(VENV)/bin/residua demo $(ARGS)

test: $(STAMP)
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) --dist loadfile $(ARGS)

test-thorough: $(STAMP)
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) --dist loadfile -m 'thorough and not slow' $(ARGS)

test-all: $(STAMP)
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) --dist loadfile -m '' $(ARGS)

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict -d build/docs

mutants: $(STAMP)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check $(CONSTRAINTS) -e '.[dev,mutants]'
	$(VENV)/bin/python -m tests.mutants $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/basedpyright
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
