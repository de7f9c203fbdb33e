# Every target does its own set-up, in .venv. A second run installs nothing.
PYTHON ?= python3
BIN := .venv/bin
CORE := .venv/.core-installed
DEV := .venv/.dev-installed
# Processes that share the fast tests; each computes on one thread.
JOBS ?= 2

.PHONY: help demo test slow lint data bench soak clean

help:
	@echo "make demo   train, sample and check three models on real handwritten digits (about 3 minutes)"
	@echo "make test   the fast tests"
	@echo "make slow   the long tests"
	@echo "make lint   style and types"
	@echo "make data   fetch Fashion-MNIST, the emoji and zip codes into data/"
	@echo "make bench  speed beside other libraries, in an environment of its own"
	@echo "make soak   kill, damage and fuzz for an hour and a half; writes runs/soak/*.json"
	@echo "make clean  remove the environments and caches (never runs/ or data/)"

$(CORE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fluvial needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (torch first; this takes a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(DEV): $(CORE)
	@echo "Installing what the tests need into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(CORE)
	$(BIN)/fluvial demo --out runs/demo

test: $(DEV)
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS)

slow: $(DEV)
	$(BIN)/python -m pytest -m slow -n $(JOBS) --dist loadfile

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

data: $(CORE)
	@bash scripts/fetch_data.sh

# The last takes an hour; each program also runs alone: python tests/soak/kills.py --help.
soak: $(DEV)
	@mkdir -p runs/soak
	@failed=; for run in "kills --count 200" "damage --count 200" "files --count 12000" "arguments --count 10000" \
	    "functions --count 6000" "ranks --count 20" "memory --minutes 60"; do \
	    set -- $$run; echo "== $$run"; \
	    OMP_NUM_THREADS=1 $(BIN)/python tests/soak/$$1.py $$2 $$3 --seed 0 --json > runs/soak/$$1.json || failed="$$failed $$1"; \
	    cat runs/soak/$$1.json; \
	done; if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

bench:
	@bash benchmarks/run.sh $(PYTHON)

clean:
	rm -rf .venv .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find src tests examples benchmarks -name __pycache__ -type d -exec rm -rf {} +
