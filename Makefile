# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
MODEL := ffnet_seg_nano_scenes

.PHONY: help demo examples test slow lint format docs clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

demo: $(STAMP)  ## generate scenes, export, time and score the small network, write demo/report.html
	$(BIN)/python -m scenes $(DEMO)/data --train 0 --val 16 --size 256x512 --seed 1000
	$(BIN)/ffnet-export --config $(MODEL) --checkpoint bundled --shape 288x576 --data $(DEMO)/data --out $(DEMO)
	$(BIN)/ffnet-bench $(DEMO)/$(MODEL).onnx --config $(MODEL) --checkpoint bundled --seconds 2 --samples 20 --rounds 10 --profile --json $(DEMO)/bench.json
	$(BIN)/ffnet-eval --config $(MODEL) --checkpoint bundled --against $(DEMO)/$(MODEL).onnx --data $(DEMO)/data --bench $(DEMO)/bench.json --json $(DEMO)/scores.json --html $(DEMO)/report.html
	@echo "open $(DEMO)/report.html in a browser"

examples: $(STAMP)  ## run every example in build/examples
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[examples]'
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/run.sh build/examples

test: $(STAMP)  ## run the suite
	$(BIN)/python -m pytest

slow: $(STAMP)  ## run the tests that take longer than a minute each
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)  ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## mend style where that needs no thought
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## build the documentation into build/docs; it needs no network to be read
	$(BIN)/python -m ffnet_deploy.cli.reference > docs/reference/commands.md
	$(BIN)/mkdocs build --strict --site-dir build/docs

clean:  ## remove the environment and what demo, docs and builds wrote
	rm -rf $(VENV) $(DEMO) build *.egg-info
