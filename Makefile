# make demo: all three stages on the embedded model, ends with otcache_demo/report.html
# make test: lint, the browser code's tests (with npm), the nodes' in the ComfyUI that tools/find_host.py finds, and that ComfyUI's
#            frontend's with the nodes in Chromium beside the library's (test-web, test-host, test-browser, test-core do one of these)
# make host: what `make test` does first where no ComfyUI is found: clones one into .comfyui (COMFYUI_URL, COMFYUI_TAG: another)
# make check-host COMFYUI_PATH=...: the same tests of nodes and frontend with any ComfyUI, in an environment of its own
#            (.venv-hosts/VERSION), and one line of what failed. FRONTEND=1.58.1: another frontend. TESTS=tests/browser: only these.
#            PACKAGES=requests: for one that has not named all it needs
# Each makes its own virtual environment on first use (.venv, .venv-host). Without make, see docs/commands.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOST_VENV := .venv-host
HOST_BIN := $(HOST_VENV)/bin
# What the host tests are known to run with; ComfyUI itself asks for any version.
HOST_TORCH := torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some containers set it: each of the many processes of the tests would compile all of ComfyUI again.
unexport PYTHONDONTWRITEBYTECODE

# Paths in a list of prerequisites need their spaces escaped.
empty :=
space := $(empty) $(empty)

.NOTPARALLEL: # two goals that make the same environment
.PHONY: demo test lint test-house test-core test-core-and-browser test-web host any-host check-host test-host host-tests test-browser browser-tests workflows made-workflows bench clean

demo: $(VENV)/installed
	$(BIN)/python -m otcache_core demo --out otcache_demo

test: lint test-web test-host test-core-and-browser

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .

# What takes seconds: imports, sizes, requirements, documents.
test-house: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/core/test_house.py tests/core/test_requirements.py tests/core/test_documents.py -q

test-core: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/core -q -n 2 --dist worksteal

# The frontend's tests wait much of their time, in which the library's are run; what those print comes at the end.
test-core-and-browser: $(VENV)/installed-dev
	@out="$$(mktemp)"; trap 'kill $$core 2>/dev/null; rm -f "$$out"' EXIT; trap 'exit 130' INT TERM; \
	OMP_NUM_THREADS=1 nice -n 10 $(BIN)/python -m pytest tests/core -q -n 2 --dist worksteal >"$$out" 2>&1 & core=$$!; \
	$(MAKE) --no-print-directory test-browser; browser=$$?; \
	wait $$core; found=$$?; cat "$$out"; exit $$(( browser || found ))

test-web:
	@if command -v npm >/dev/null; then npm install --no-package-lock --no-audit --no-fund && npm test; \
	else printf '\n%s\n\n' 'THE TESTS OF THE BROWSER CODE (tests/web) WERE NOT RUN: THERE IS NO npm.' >&2; fi

host:
	@$(PYTHON) -m tools.get_host

check-host:
	@$(PYTHON) -m tools.check_host $(HOST_TORCH) $(PACKAGES) $(if $(FRONTEND),--frontend '$(FRONTEND)') $(if $(TESTS),--tests $(TESTS))

# One try for both kinds of tests. It has said why it failed; they say what is not tested, or fail.
any-host:
	@$(PYTHON) tools/find_host.py >/dev/null 2>&1; [ $$? != 1 ] || $(PYTHON) -m tools.get_host || true

# Exit status 1 of find_host.py: there is none. Anything else: COMFYUI_PATH is wrong.
test-host test-browser: test-%: any-host
	@host="$$($(PYTHON) tools/find_host.py)"; found=$$?; \
	if [ $$found = 0 ]; then $(MAKE) --no-print-directory $*-tests HOST="$$host"; \
	elif [ $$found != 1 ] || [ "$$OTCACHE_REQUIRE_HOST" = 1 ]; then exit 1; \
	else printf '\n%s\n%s\n%s\n\n' '!!!!!!!!!!' 'NO TEST IN tests/$* WAS RUN: NONE OF THE NODES IS TESTED.' '!!!!!!!!!!' >&2; fi

host-tests: $(HOST_VENV)/installed
# One thread each: two processes with as many threads as cores would wait for each other.
	OMP_NUM_THREADS=1 COMFYUI_PATH="$(HOST)" $(HOST_BIN)/python -m pytest tests/host -q -n 2 --dist loadfile

browser-tests: $(HOST_VENV)/installed
	OMP_NUM_THREADS=1 COMFYUI_PATH="$(HOST)" $(HOST_BIN)/python -m pytest tests/browser -q

# Writes example_workflows/ and subgraphs/ anew; for after a node's inputs have changed.
workflows:
	@host="$$($(PYTHON) tools/find_host.py)" && $(MAKE) --no-print-directory made-workflows HOST="$$host"

made-workflows: $(HOST_VENV)/installed
	COMFYUI_PATH="$(HOST)" $(HOST_BIN)/python -m tools.make_workflows

bench: $(VENV)/installed
	$(BIN)/python -m otcache_core bench --out otcache_bench

$(VENV)/installed: requirements-standalone.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "OTCache needs Python 3.10 or newer; run: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements-standalone.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

$(HOST_VENV)/installed: requirements.txt requirements-dev.txt $(subst $(space),\ ,$(HOST))/requirements.txt
	$(PYTHON) -m venv $(HOST_VENV)
	$(HOST_BIN)/python -m pip install --quiet $(HOST_TORCH)
	$(HOST_BIN)/python -m pip install --quiet -r "$(HOST)/requirements.txt" -r requirements.txt -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) $(HOST_VENV) .venv-hosts .comfyui .comfyui.part node_modules otcache_demo otcache_bench .pytest_cache .hypothesis .ruff_cache
