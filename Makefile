# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
MODEL := ffnet_seg_nano_scenes

.PHONY: demo test slow lint clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

demo: $(STAMP)
	$(BIN)/python -m scenes $(DEMO)/data --train 0 --val 16 --size 256x512 --seed 1000
	$(BIN)/ffnet-export --config $(MODEL) --checkpoint bundled --shape 288x576 --data $(DEMO)/data --out $(DEMO)
	$(BIN)/ffnet-bench $(DEMO)/$(MODEL).onnx --config $(MODEL) --checkpoint bundled --seconds 2 --samples 20 --rounds 10 --profile --json $(DEMO)/bench.json
	$(BIN)/ffnet-eval --config $(MODEL) --checkpoint bundled --against $(DEMO)/$(MODEL).onnx --data $(DEMO)/data --bench $(DEMO)/bench.json --json $(DEMO)/scores.json --html $(DEMO)/report.html
	@echo "open $(DEMO)/report.html in a browser"

test: $(STAMP)
	$(BIN)/python -m pytest

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
