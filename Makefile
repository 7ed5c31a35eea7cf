# Two commands for a newcomer: `make demo` and `make test`. TORCH=gpu takes the CUDA build instead of the CPU one.
PYTHON ?= python3
TORCH ?= cpu
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install ui demo test lint types layers check data bench hippocampus sarcoma intake clean

help:
	@echo "make demo    install, run three rounds on synthetic CT exams, print the tables   (project left in demo/)"
	@echo "make test    install, lint, types, layers, all tests"
	@echo "make ui      build the workstation of the browser (npm); part of install where npm is there"
	@echo "make bench   what it costs: ingest, orchestration, start-up, the demo"
	@echo "make hippocampus sarcoma    campaigns on real images, DATA=folder: see docs/results"
	@echo "make intake                 what becomes of every series of a folder of collections, DATA=folder"
	@echo "make data    rebuild the reference dataset data/ byte for byte and check it against data.dvc"

install: $(STAMP) ui

$(STAMP): pyproject.toml constraints.txt infra/install_torch.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python infra/install_torch.py constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv -c constraints.txt || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

# The workstation in the browser. Without npm everything else works, and its page says how to build it.
UI := app/web/ui
DIST := app/web/static/dist

ui:
	@if command -v npm >/dev/null 2>&1; then $(MAKE) --no-print-directory $(DIST)/work.js; \
	elif test -f $(DIST)/work.js; then echo "npm is not here: the workstation stays as it was built."; \
	else echo "npm is not here: the workstation (redraft serve) is not built. Install Node.js 20 or later, then: make ui"; fi

$(DIST)/work.js: $(UI)/package-lock.json $(UI)/build.mjs $(wildcard $(UI)/src/*)
	cd $(UI) && npm ci --no-fund --no-audit --loglevel=error && node build.mjs

demo: install
	$(BIN)/python -m app.demo demo

test: install check
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: lint types layers

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

layers: install
	$(BIN)/lint-imports

data: install
	$(BIN)/python -m redraft.phantom.reference data

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf demo build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Campaigns on real images with simulated readers; DATA holds the folders `hippocampus` and `sts_dicom_rtstruct`.
DATA ?= ../shared/data

hippocampus sarcoma: install
	$(BIN)/python -m benchmarks.real_data $@ $(DATA)

# What becomes of every series of a folder of collections.
intake: install
	$(BIN)/python -m benchmarks.intake $(DATA)
