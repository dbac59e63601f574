# Two commands are enough: `make serve` and `make test`. Everything is installed into .venv, with the versions of requirements.lock.
#
#   make serve ARGS="--port 8000 --api-auth me:secret"     any flag of `darkroom serve`
#   make test ARGS="tests/unit -k scheduler"               any argument of pytest

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
ARGS   ?=

# A stamp is newer than what it was installed from, so a second start installs nothing.
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help serve install dev test check format bench parity mini-report settings-doc api-doc ui-screenshots fuzz lock clean

help:
	@echo "make serve         serve on http://127.0.0.1:7860 (ARGS=... are passed on)"
	@echo "make test          run the tests"
	@echo "make check         formatting, lint, types, import rules"
	@echo "make bench         measure this machine beside others' programs, write bench/results/"
	@echo "make parity        compare with the original program's recorded pictures, write docs/parity.md"
	@echo "make mini-report   judge the embedded model, write docs/mini.md"
	@echo "make settings-doc  write docs/settings.md from the settings themselves"
	@echo "make api-doc       write docs/openapi.json and the reference in docs/api.md from the routes"
	@echo "make ui-screenshots  write docs/ui/*.webp, the pictures of the pages (needs chromium)"
	@echo "make fuzz          ten minutes of generated requests against a server of its own"
	@echo "make format        format and mend what the linter can mend"
	@echo "make lock          write requirements.lock from what is installed"
	@echo "make clean         remove .venv and caches"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Darkroom needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) install --quiet --constraint requirements.lock --editable .
	@touch $@

$(DEV): pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) install --quiet --constraint requirements.lock --editable '.[dev]'
	@touch $@ $(RUN)

install: $(RUN)

dev: $(DEV)

serve: $(RUN)
	$(BIN)/darkroom serve $(ARGS)

# Threads that wait for each other sleep: on a machine that is busy otherwise, spinning ones take many times as long.
test: $(DEV)
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest $(ARGS)

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV)
	$(PIP) install --quiet --constraint requirements.lock 'stable-diffusion-cpp-python>=0.4,<0.5' || echo "without stable-diffusion.cpp"
	$(BIN)/darkroom bench --output bench/results --folder bench/results/models $(ARGS)

parity: $(DEV)
	TRANSFORMERS_VERBOSITY=error $(BIN)/python -m bench.parity $(ARGS)

mini-report: $(DEV)
	$(BIN)/python -m darkroom.mini.report $(ARGS)

settings-doc: $(DEV)
	$(BIN)/python docs/generate.py

api-doc: $(DEV)
	$(BIN)/python docs/generate_api.py

ui-screenshots: $(DEV)
	@mkdir -p docs/ui
	DARKROOM_SCREENS=$(CURDIR)/docs/ui $(BIN)/python -m pytest tests/browser/test_screens.py $(ARGS)

fuzz: $(DEV)
	DARKROOM_FUZZ_S=600 $(BIN)/python -m pytest tests/e2e/test_fuzz.py -s -o faulthandler_timeout=900 $(ARGS)

# A local version label such as +cpu names a build, not a version: the lock leaves it out.
lock: $(DEV)
	@{ sed -n '/^#/p' requirements.lock; \
	   $(PIP) freeze --exclude-editable 2>/dev/null | sed 's/+[a-z0-9.]*$$//'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
