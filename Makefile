# `make demo` and `make test` each work first and alone on a fresh clone.
PYTHON ?= python3
BIN = .venv/bin
READY = .venv/.ready
PEER = .venv-peer/.ready
MODELS = .cache/models

.PHONY: help setup models demo test lint bench bench-learning clean

help:
	@echo 'make setup   make .venv with everything in it (llama-cpp-python compiles for minutes, once)'
	@echo 'make demo    show the whole loop on an example week: learn, swap, answer, roll back'
	@echo 'make test    unit, integration and end-to-end tests'
	@echo 'make lint    style, types, and who may import whom'
	@echo 'make bench-learning  six rounds of a life, ours beside naive LoRA (quick form, 20 minutes)'
	@echo 'make bench   measurements; tables, and JSON in benchmarks/out'
	@echo 'make clean   remove what make, tests and the demo made (the models stay: rm -r .cache)'
	@echo 'Another Python: make setup PYTHON=python3.12'

setup: $(READY)

$(READY): pyproject.toml constraints.txt .ci/setup.sh
	PYTHON='$(PYTHON)' sh .ci/setup.sh
	@touch $@

models: $(MODELS)/.ready

$(MODELS)/.ready: .ci/models.py adapters/data/embedder.safetensors | $(READY)
	rm -f $(MODELS)/all-minilm-l6-v2.*
	$(BIN)/python .ci/models.py .cache
	@touch $@

demo: $(READY) models
	$(BIN)/python examples/demo.py --models '$(CURDIR)/$(MODELS)'

test: $(READY) models
	ACCLIMATE_TEST_MODELS='$(CURDIR)/$(MODELS)' $(BIN)/python -m pytest --durations=15

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Without the peer (no wheel for this machine, no network) its columns stay empty.
$(PEER): .ci/peer.sh
	PYTHON='$(PYTHON)' sh .ci/peer.sh && touch $@ || rm -rf .venv-peer

bench: $(READY) models $(PEER)
	@mkdir -p benchmarks/out
	set -e; for script in benchmarks/*.py; do [ ! -e "$$script" ] || $(BIN)/python "$$script"; done

bench-learning: $(READY) models
	$(BIN)/python benchmarks/learning.py

clean:
	rm -rf .venv .venv-peer build dist demo-home demo-home-stream report.json benchmarks/out .pytest_cache \
		.mypy_cache .ruff_cache .hypothesis .import_linter_cache ./*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
