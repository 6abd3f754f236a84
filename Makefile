# What a person types. `make help` lists it. On Windows, without make: pip install ".[lab]", then dlpractice lab.
PYTHON ?= python3
DIR ?= dlpractice-lessons
BIN := .venv/bin
# real datasets that lie beside the checkout are found without asking
ifeq ($(origin DLPRACTICE_DATA), undefined)
  ifneq ($(wildcard ../shared/data),)
    export DLPRACTICE_DATA := $(abspath ../shared/data)
  endif
endif
needs := settings.ini pyproject.toml setup.py

.PHONY: help lab test docs site export clean-nbs bench runs
.DEFAULT_GOAL := help

help:
	@echo 'make lab        install, and open JupyterLab on your copy of the lessons (DIR=dlpractice-lessons; NO_BROWSER=1 only prints the address)'
	@echo 'make test       install what the tests need, and run every one, on all cores (ARGS="-n 0": in one process; ARGS="-x -k plots": as pytest takes them)'
	@echo 'make docs       build the offline site into _docs/ (needs npm)'
	@echo 'make site       the same with nbdev-docs (needs Quarto)'
	@echo 'make export     notebooks -> dlpractice/*.py, README.md, CONTRIBUTING.md'
	@echo 'make clean-nbs  strip what should not be committed from the notebooks'
	@echo 'make runs       make the stored runs that are missing or stale'
	@echo 'make bench      measure against other libraries, into benchmarks/results.md'
	@echo 'Everything is installed into .venv, with $(PYTHON); make PYTHON=python3.12 ... takes another.'

# Stamp files: an install is repeated only when a requirement may have changed.
.venv/bin/python:
	@echo '== making .venv with $(PYTHON)'
	@$(PYTHON) -m venv .venv || { echo 'That needs the venv module: on Debian and Ubuntu, apt-get install python3-venv.'; exit 1; }

.venv/.dev: $(needs) | .venv/bin/python
	@echo '== installing dlpractice and what its development needs into .venv (several minutes the first time)'
	$(BIN)/python -m pip install --quiet -e '.[dev,lab,scale]'
	@touch $@ .venv/.lab

.venv/.lab: $(needs) | .venv/bin/python
	@echo '== installing dlpractice and JupyterLab into .venv (several minutes the first time)'
	$(BIN)/python -m pip install --quiet -e '.[lab]'
	@touch $@

lab: .venv/.lab
	@echo '== your copy of the lessons, in $(DIR)/'
	@$(BIN)/dlpractice lab $(DIR)

test: .venv/.dev
	@echo '== testing: every notebook, the repository, the wheel, the site'
	@MPLBACKEND=agg OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto $(ARGS)

docs: need-npm .venv/.dev
	@echo '== building the offline site'
	@$(BIN)/python docs/build.py
	@echo 'The site is in _docs/. See it with: $(BIN)/python -m http.server -d _docs 8000 --bind 127.0.0.1'

site: need-quarto .venv/.dev
	@echo '== building the site with Quarto'
	@PATH="$(CURDIR)/$(BIN):$$PATH" nbdev-docs
	@echo 'The site is in _docs/.'

# before anything is installed
.PHONY: need-npm need-quarto
need-npm:
	@command -v npm >/dev/null || { echo "make docs needs Node's npm, for the scripts of sliders and formulas. On Debian and Ubuntu: apt-get install npm; elsewhere: install Node.js."; exit 1; }

need-quarto:
	@command -v quarto >/dev/null || { echo 'make site needs Quarto on the PATH: see quarto.org/docs/get-started. make docs builds the site without it.'; exit 1; }

export: .venv/.dev
	@echo '== exporting the notebooks'
	@$(BIN)/python tools/export.py
	@$(BIN)/python tools/claim_links.py
	@$(BIN)/python tools/readme.py
	@echo 'See: git diff dlpractice README.md CONTRIBUTING.md'

clean-nbs: .venv/.dev
	@echo '== cleaning the notebooks'
	@PATH="$(CURDIR)/$(BIN):$$PATH" nbdev-clean
	@echo 'See: git diff nbs'

runs: .venv/.dev
	@echo '== making the stored runs that are missing or stale'
	@$(BIN)/python tools/runs.py
	@echo 'They are in nbs/**/runs/. Execute the notebooks that read them: $(BIN)/python tools/execute.py NOTEBOOK'

.venv-bench/.installed: benchmarks/requirements.txt $(needs)
	@echo '== installing dlpractice and the libraries to compare with into .venv-bench'
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet -e . -r benchmarks/requirements.txt
	@touch $@

bench: .venv-bench/.installed
	@echo '== measuring (best on a quiet machine)'
	@.venv-bench/bin/python benchmarks/run.py
	@echo 'The figures are in benchmarks/results.md'
