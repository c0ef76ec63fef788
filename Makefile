# bbqrec: `make reproduce` and `make test` do everything; each target runs the set-up that it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup reproduce test unit torture browser lab inspector book site figures full full-gpu bench lock sbom clean

# Two threads on a busy machine are many times slower than one; with one thread, tables do not depend on `--jobs`.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := PASSIVE

# The first supported Python of this list. Each name is tried, because it may be a launcher without that version.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	"$$name" -c '$(SUPPORTED)' >/dev/null 2>&1 && { echo "$$name"; exit; }; done)
IS_SUPPORTED = $(if $(PYTHON),$(shell "$(PYTHON)" -c '$(SUPPORTED)' >/dev/null 2>&1 && echo yes))
FOUND = $(if $(PYTHON),$(shell "$(PYTHON)" --version 2>&1),$(shell python3 --version 2>/dev/null || echo 'no python3'))
REFUSED = bbqrec needs Python 3.11, 3.12 or 3.13 (found $(FOUND)): install one, or run \
	`make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3.12`

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
ARGS ?=
# LOCKED=1 installs exactly the files whose hashes are in requirements.lock; else pip takes the pinned versions from where it
# is set up to look, such as a build of torch for CPUs.
LOCKED ?=
WANTED = $(if $(LOCKED),--require-hashes -r requirements.lock,-c constraints.txt -e '.[dev]')
SBOM ?= build/sbom.json

help: ## list these targets
	@echo 'make reproduce   set up .venv, get the data, run all notebooks, write tables and figures to runs/'
	@echo '                 (other options: make reproduce ARGS="--dataset ml-1m --preset full --seeds 0,1,2 --jobs 4")'
	@echo 'make test        set up .venv, run ruff, the unit tests, and all notebooks on planted data'
	@echo 'make unit        only the unit tests; with another Python: make unit PYTHON=python3.13 VENV=.venv-3.13'
	@echo 'make torture     set up .venv, kill, fill the disk, damage files and feed malformed data for about 20 minutes'
	@echo 'make browser     set up .venv, test every widget control in Chromium (must be installed)'
	@echo 'make lab         set up .venv, open copies of the notebooks, in lab/, in JupyterLab (on this machine only, with a token)'
	@echo 'make inspector   set up .venv, serve the codebook inspector as a web page (on this machine only)'
	@echo 'make book        set up .venv, build an offline web site of the executed notebooks: runs/book/ml-100k/quick'
	@echo '                 (run make reproduce first; for another run: make book ARGS="--dataset planted --preset smoke")'
	@echo 'make site        run make reproduce and make book, collect all pages in runs/site, ready to publish (with another run:'
	@echo '                 make site DATASET=planted PRESET=smoke); .github/workflows/pages.yml publishes it on GitHub Pages'
	@echo 'make figures     set up .venv, run make reproduce, copy the figures and tables of README and notebooks to figures/'
	@echo 'make full        set up .venv, train rows of preset full one by one, keep each in figures/ when it is done (hours; may be'
	@echo '                 stopped at any time: make full DATASET=path/to/bundle ARGS="--rows bbqrec,sasrec --seeds 0 --minutes 60")'
	@echo 'make full-gpu    on a machine with a GPU: the tests of devices, then one seed of rows; none starts after 12 minutes'
	@echo 'make bench       set up .venv and .peers (other libraries, 3 GB), compare the speed of the core with them: runs/bench/bench.csv'
	@echo '                 (one row, small scale: make bench ARGS="--only quantize --scale 0.01")'
	@echo 'make lock        write requirements.lock anew: every package with the hashes of its files (make setup LOCKED=1 installs it)'
	@echo 'make sbom        write the bill of materials of the lock (CycloneDX JSON): build/sbom.json'
	@echo 'make setup       only set up .venv (takes minutes the first time)'
	@echo 'make clean       delete .venv*, .uv, .peers, runs/ and tool caches in this folder; keep lab/, downloaded data and encoders'

setup: $(STAMP)

# Without a supported Python on the machine, uv downloads one. If PYTHON is given, make uses it or stops with an error.
UV := .uv/bin/uv
BY_UV = "$$(command -v python3 || command -v python)" -m pip install -q --disable-pip-version-check --target .uv uv \
	&& $(UV) venv -q --seed --clear --python 3.12 $(VENV)

$(STAMP): constraints.txt pyproject.toml
	$(if $(PYTHON),$(if $(IS_SUPPORTED),,$(error $(REFUSED))))
	@if $(BIN)/python -c '$(SUPPORTED)' 2>/dev/null; then :; \
	elif [ -z "$(PYTHON)" ]; then \
		echo 'bbqrec: no Python 3.11, 3.12 or 3.13 found; downloading one with uv' >&2; \
		{ $(BY_UV); } >/dev/null 2>&1 || { echo '$(REFUSED)' >&2; exit 1; }; \
	else "$(PYTHON)" -m venv --clear $(VENV) \
		|| { echo 'bbqrec: cannot make $(VENV): install the venv module (Debian: apt install python3-venv)' >&2; exit 1; }; \
	fi
	@echo 'bbqrec: setting up $(VENV) from constraints.txt (only once; 1 to 4 minutes plus download, 2 to 6 GB depending on the torch build)' >&2
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(WANTED) \
		| while IFS= read -r line; do case "$$line" in \
			Collecting*) n=$$((n + 1)); ((n % 25)) || echo "bbqrec:   $$n of about 150 packages found, $$SECONDS s" >&2;; \
			'Installing collected'*) echo "bbqrec:   installing them, $$SECONDS s so far (takes about 1 minute)" >&2;; \
		esac; done \
		|| { echo 'bbqrec: pip could not install the packages: see its message above, then run make again' >&2; exit 1; }
	@$(if $(LOCKED),$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .)
	@$(BIN)/python -m ipykernel install --sys-prefix --name bbqrec --display-name bbqrec >/dev/null \
		|| { echo 'bbqrec: could not register the notebook kernel in $(VENV): run make clean, then run make again' >&2; exit 1; }
	@touch $(STAMP)
	@echo 'bbqrec: $(VENV) is ready' >&2

reproduce: $(STAMP) ## data, rows, notebooks, tables
	@$(BIN)/bbqrec reproduce $(ARGS)

WORKERS ?= -n auto --maxprocesses 8 --dist loadfile # one worker per core; a file stays together: its tests share fixtures
UNIT = $(BIN)/python -m pytest $(WORKERS) -m 'not suite and not browser and not torture' $(ARGS) \
	|| { echo 'make $@: unit tests failed, see the list above' >&2; exit 1; }

unit: $(STAMP) ## only the unit tests
	@$(UNIT)

test: $(STAMP) ## the command that CI runs
	@echo 'bbqrec: 1 of 3, ruff (seconds)' >&2
	@$(BIN)/ruff check . --no-cache || { echo 'make test: ruff check found the problems above' >&2; exit 1; }
	@$(BIN)/ruff format --check . --no-cache || { echo 'make test: the files above are not formatted: run .venv/bin/ruff format .' >&2; exit 1; }
	@echo 'bbqrec: 2 of 3, unit tests (5 to 8 minutes)' >&2
	@$(UNIT)
	@echo 'bbqrec: 3 of 3, all notebooks on planted data and on odd bundles (about 35 minutes)' >&2
	@$(BIN)/python -m pytest -m suite $(ARGS) || { echo 'make test: the notebook tests failed, see above' >&2; exit 1; }

torture: $(STAMP) ## killed, damaged, full, malformed: nothing is lost or silently wrong
	@$(BIN)/python -m pytest -m torture $(ARGS) || { echo 'make torture: tests failed, see the list above' >&2; exit 1; }

lab: $(STAMP) ## JupyterLab on copies of the notebooks
	@$(BIN)/bbqrec lab

browser: $(STAMP) ## widget tests in a browser
	@$(BIN)/python -m pytest -m browser -s $(ARGS) || { echo 'make browser: the widget tests failed, see above' >&2; exit 1; }

inspector: $(STAMP) ## notebook 07 as a web page, with Voila
	@$(BIN)/bbqrec inspector $(ARGS)

book: $(STAMP) ## the executed notebooks as a web site
	@$(BIN)/bbqrec book $(ARGS)

DATASET ?= ml-100k
PRESET ?= quick

site: ## the book and the report of a run, to publish
	@$(MAKE) --no-print-directory reproduce ARGS="--dataset $(DATASET) --preset $(PRESET)"
	@$(MAKE) --no-print-directory book ARGS="--dataset $(DATASET) --preset $(PRESET)"
	@rm -rf runs/site
	@$(BIN)/python -c 'import sys; from bbqrec_lab.suite import book; print(book.site(*sys.argv[1:]))' \
		'$(DATASET)' '$(PRESET)' runs runs/site

figures: reproduce ## the only target that writes figures/
	@$(BIN)/python -c 'from bbqrec_lab.suite import reproduce; reproduce.promote()'

full: $(STAMP) ## rows of the preset full, each kept in figures/
	@$(BIN)/python -m benchmarks.tables $(DATASET) $(ARGS)

full-gpu: $(STAMP) ## the same on a GPU
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
		|| { echo 'make full-gpu: torch finds no GPU: install a torch build for it, or use make full' >&2; exit 1; }
	@$(BIN)/python -m pytest tests/core/test_devices.py || { echo 'make full-gpu: the tests of devices failed, see above' >&2; exit 1; }
	@$(BIN)/python -m benchmarks.tables $(DATASET) --seeds 0 --minutes 12 $(ARGS)

PEERS := .peers
PEER_PINS_main := -c constraints.txt
PEER_PINS_recbole :=

$(PEERS)/%/.stamp: benchmarks/peers_%.txt constraints.txt
	$(if $(IS_SUPPORTED),,$(error $(REFUSED)))
	@echo 'bbqrec: setting up $(PEERS)/$* from $< (only once; 1 to 3 minutes plus download)' >&2
	@"$(PYTHON)" -m venv --clear $(PEERS)/$*
	@$(PEERS)/$*/bin/python -m pip install --disable-pip-version-check --progress-bar off -q $(PEER_PINS_$*) -r $< \
		|| { echo 'bbqrec: pip could not install the peer libraries: see its message above' >&2; exit 1; }
	@touch $@

bench: $(STAMP) $(PEERS)/main/.stamp $(PEERS)/recbole/.stamp ## speed of the core and of peer libraries
	@$(BIN)/python -m benchmarks $(ARGS)

# Without the settings of this machine: the lock may hold no local build and no address.
lock: $(STAMP) ## requirements.lock anew, from the public index
	@env -u UV_FIND_LINKS -u UV_INDEX -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL $(BIN)/uv pip compile --no-config -q \
		pyproject.toml --extra dev -c constraints.txt --generate-hashes --universal --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate $(ARGS) -o requirements.lock
	@echo requirements.lock

sbom: ## bill of materials of the lock
	@$(or $(PYTHON),python3) .ci/sbom.py requirements.lock $(SBOM)

clean: ## deletes nothing outside this folder
	rm -rf .venv .venv-* .uv $(PEERS) runs build *.egg-info .pytest_cache .ruff_cache .hypothesis .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
