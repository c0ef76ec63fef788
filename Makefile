# bbqrec: two commands do everything, `make reproduce` and `make test`; each does the set-up it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup reproduce test browser lab inspector book figures bench clean

# Two threads on a busy machine are many times slower than one, and one thread makes tables equal for any number of jobs.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := PASSIVE

# The first of these that is Python 3.11 (a name on the PATH may be a launcher without that version behind it).
PYTHON ?= $(shell for name in python3.11 python3 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 && { echo "$$name"; exit; }; done)
FOUND = $(shell python3 --version 2>/dev/null || echo 'no python3 at all')
IS_311 = $(shell "$(PYTHON)" -c 'import sys; print(sys.version_info[:2] == (3, 11))' 2>/dev/null)
REFUSED = bbqrec needs Python 3.11, the version it is tested with (found $(if $(PYTHON),$(shell "$(PYTHON)" --version \
	2>&1),$(FOUND))): install it, or run `make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3.11`

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
ARGS ?=

help: ## list these targets
	@echo 'make reproduce   set up .venv, get the data, run every notebook, write tables and figures below runs/'
	@echo '                 (others: make reproduce ARGS="--dataset ml-1m --preset full --seeds 0,1,2 --jobs 4")'
	@echo 'make test        set up .venv, run ruff, the unit tests and the notebook suite on planted data'
	@echo 'make browser     set up .venv, move every control of the widgets in a real Chromium (must be installed)'
	@echo 'make lab         set up .venv, open JupyterLab on the notebooks (this machine only, with a token)'
	@echo 'make inspector   set up .venv, serve the codebook inspector as a web page (this machine only)'
	@echo 'make book        set up .venv, make a web site of the executed notebooks, to read offline: runs/book/ml-100k/quick'
	@echo '                 (after make reproduce; another run: make book ARGS="--dataset planted --preset smoke")'
	@echo 'make figures     set up .venv, run the default job, copy the figures and tables that the pages name to figures/'
	@echo 'make bench       set up .venv and .peers (other libraries, 3 GB), time the core against them: runs/bench/bench.csv'
	@echo '                 (single rows, small: make bench ARGS="--only quantize --scale 0.01")'
	@echo 'make setup       only set up .venv (minutes the first time, nothing when it is there)'
	@echo 'make clean       delete .venv, .peers, runs/ and caches of tools in this folder; downloaded data and encoders stay'

setup: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	$(if $(filter True,$(IS_311)),,$(error $(REFUSED)))
	@echo 'bbqrec: setting up .venv from constraints.txt (once; 1 to 4 minutes plus download, 2 to 6 GB with the torch build)' >&2
	@[ -x $(BIN)/python ] && [ "$$($(BIN)/python -c 'import sys; print(sys.version_info[:2])' 2>/dev/null)" = '(3, 11)' ] \
		|| "$(PYTHON)" -m venv --clear $(VENV) \
		|| { echo 'bbqrec: cannot make .venv: install the venv module (Debian: apt install python3.11-venv)' >&2; exit 1; }
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev]' \
		| while IFS= read -r line; do case "$$line" in \
			Collecting*) n=$$((n + 1)); ((n % 25)) || echo "bbqrec:   $$n of about 150 packages found, $$SECONDS s" >&2;; \
			'Installing collected'*) echo "bbqrec:   unpacking them, $$SECONDS s so far (about 1 minute)" >&2;; \
		esac; done \
		|| { echo 'bbqrec: the packages could not be installed: see the pip message above, then run make again' >&2; exit 1; }
	@$(BIN)/python -m ipykernel install --sys-prefix --name bbqrec --display-name 'bbqrec (Python 3.11)' >/dev/null \
		|| { echo 'bbqrec: the notebook kernel could not be registered in .venv: run make clean, then make again' >&2; exit 1; }
	@touch $(STAMP)
	@echo 'bbqrec: .venv is ready' >&2

reproduce: $(STAMP) ## data, rows, notebooks, tables
	@$(BIN)/bbqrec reproduce $(ARGS)

test: $(STAMP) ## what CI runs
	@echo 'bbqrec: 1 of 3, ruff (seconds)' >&2
	@$(BIN)/ruff check . --no-cache || { echo 'make test: ruff check found the problems above' >&2; exit 1; }
	@$(BIN)/ruff format --check . --no-cache || { echo 'make test: files above are not formatted: run .venv/bin/ruff format .' >&2; exit 1; }
	@echo 'bbqrec: 2 of 3, unit tests (2 to 3 minutes)' >&2
	@$(BIN)/python -m pytest -m 'not suite and not browser' $(ARGS) || { echo 'make test: unit tests failed, listed above' >&2; exit 1; }
	@echo 'bbqrec: 3 of 3, every notebook on planted data (4 to 6 minutes)' >&2
	@$(BIN)/python -m pytest -m suite $(ARGS) || { echo 'make test: the notebook suite failed, see above' >&2; exit 1; }

lab: $(STAMP) ## JupyterLab on notebooks/
	@$(BIN)/bbqrec lab

browser: $(STAMP) ## widgets in a real browser
	@$(BIN)/python -m pytest -m browser -s $(ARGS) || { echo 'make browser: the widgets failed, see above' >&2; exit 1; }

inspector: $(STAMP) ## notebook 07 as a web page, through Voila
	@$(BIN)/bbqrec inspector $(ARGS)

book: $(STAMP) ## the executed suite as a web site
	@$(BIN)/bbqrec book $(ARGS)

figures: reproduce ## the only writer of figures/
	@$(BIN)/python -c 'from bbqrec_core import reproduce; reproduce.promote()'

PEERS := .peers
PEER_PINS_main := -c constraints.txt
PEER_PINS_recbole :=

$(PEERS)/%/.stamp: benchmarks/peers_%.txt constraints.txt
	$(if $(filter True,$(IS_311)),,$(error $(REFUSED)))
	@echo 'bbqrec: setting up $(PEERS)/$* from $< (once; 1 to 3 minutes plus download)' >&2
	@"$(PYTHON)" -m venv --clear $(PEERS)/$*
	@$(PEERS)/$*/bin/python -m pip install --disable-pip-version-check --progress-bar off -q $(PEER_PINS_$*) -r $< \
		|| { echo 'bbqrec: the peers could not be installed: see the pip message above' >&2; exit 1; }
	@touch $@

bench: $(STAMP) $(PEERS)/main/.stamp $(PEERS)/recbole/.stamp ## the core against its peers
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## nothing outside this folder is touched
	rm -rf $(VENV) $(PEERS) runs build *.egg-info .pytest_cache .ruff_cache .hypothesis .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
