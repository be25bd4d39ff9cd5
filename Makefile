# make demo: all three stages on the embedded model, ends with otcache_demo/report.html
# make test: all tests that need no ComfyUI, and lint
# Each makes its own virtual environment in .venv on first use. Without make, see "Plain commands" in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test bench clean

demo: $(VENV)/installed
	$(BIN)/python -m otcache_core demo --out otcache_demo

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/python -m pytest tests -q

bench: $(VENV)/installed
	$(BIN)/python -m otcache_core bench --out otcache_bench

$(VENV)/installed: requirements.txt requirements-standalone.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "OTCache needs Python 3.10 or newer; run: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt -r requirements-standalone.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) otcache_demo otcache_bench .pytest_cache .hypothesis .ruff_cache
