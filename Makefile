# `make help` lists what there is. Every target first makes sure that the environment
# exists and this checkout is linked to it; that costs a third of a second when they are.
# (`docs` has a small one of its own.)

PYTHON_BIN := .venv/bin/python
MODEL ?=

.DEFAULT_GOAL := help
.PHONY: help env lint format types test demo curate-demo evaluate serve bench docs docs-serve docs-tables lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

env: ## Create the environment, or reuse it, and link this checkout to it
	@scripts/env.sh

lint: env ## Check style and layout (ruff)
	$(PYTHON_BIN) -m ruff check .
	$(PYTHON_BIN) -m ruff format --check .

format: env ## Fix style and layout (ruff)
	$(PYTHON_BIN) -m ruff check --fix .
	$(PYTHON_BIN) -m ruff format .

types: env ## Check types (mypy; strict on structure/)
	$(PYTHON_BIN) -m mypy

test: env ## Run the whole test suite; ARGS="-k fork -x" goes to pytest
	scripts/test.sh $(ARGS)

demo: env ## Serve a small model, ask it one question, show the branches, stop
	$(PYTHON_BIN) -m sglang_multiverse.demo $(ARGS)

curate-demo: env ## Curate bundled example chains, asking a local stand-in for a model
	$(PYTHON_BIN) -m sglang_multiverse.curator demo $(ARGS)

evaluate: env ## Evaluate a running server; ARGS="--task aime24 --samples 8 --temperature 0.6"
	$(PYTHON_BIN) -m sglang_multiverse.evaluation run --out runs/evaluation $(ARGS)

serve: env ## Serve MODEL, or the package's own; ARGS="--port 8000" goes to the server
	$(PYTHON_BIN) -m sglang_multiverse.launch_server $(if $(MODEL),--model-path $(MODEL)) $(ARGS)

bench: env ## Time a running server's branches as a batch against one at a time
	$(PYTHON_BIN) -m sglang_multiverse.evaluation latency --out runs/bench --task bundled-flat \
	  --batch-sizes 1 --answers 35 $(ARGS)

docs: ## Build the documentation as a site, strictly, into build/site
	scripts/docs/build.sh build

docs-tables: env ## Write the docs' tables of options, fields and metrics afresh from the code
	$(PYTHON_BIN) scripts/docs/reference.py

docs-serve: ## Show the documentation on http://127.0.0.1:8000, renewed as files change
	scripts/docs/build.sh serve

lock: env ## Resolve pyproject.toml afresh into both locks; ARGS=--keep holds the versions
	$(PYTHON_BIN) scripts/lock.py $(ARGS)

clean: ## Remove caches and this checkout's link to the environment, not the environment
	rm -rf .venv .venv.lock .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -not -path './.git/*' -prune -exec rm -rf {} +
