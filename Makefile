# make run       sets up what running needs, starts the page and prints its address
# make test      sets up what testing needs (system packages too, when root) and runs the fast tests: 12 minutes on 2 cores
# make test-all  the same with the tests marked journey or slow: kills, clusters, proxies, full-size parity, browser journeys;
#                SELECT="not slow" leaves out those that take minutes
# make lint      lint rules, formatting, types of maskgil/ and app/, links of the documentation, weaknesses and licences
#                of the packages
# make wheel     builds the wheel, with the weights, into dist/
# The project is installed in editable form. A set-up is remembered by a stamp named after the hash of pyproject.toml: the
# next start takes seconds, and a changed pyproject.toml sets up again. Needs Python 3.11 or newer with venv and pip, make.

PYTHON ?= python3
PORT ?= 8501
TESTS ?= tests
WORKERS ?= 2
SELECT ?= 

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --quiet
HASH := $(shell sha256sum pyproject.toml | cut -c1-16)
RUN_STAMP := $(VENV)/ready-run-$(HASH)
TEST_STAMP := $(VENV)/ready-test-$(HASH)
SYSTEM := chromium chromium-driver espeak-ng ffmpeg flite festival festvox-kallpc16k festvox-us-slt-hts fonts-noto-color-emoji \
  nginx-light

.PHONY: run test test-all lint wheel system

run: $(RUN_STAMP)
	@exec $(PY) -m app ui --port $(PORT)

test: $(TEST_STAMP) system
	$(PY) -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not journey" $(TESTS)

test-all: $(TEST_STAMP) system
	$(PY) -m pytest -n $(WORKERS) --dist loadfile -m "$(SELECT)" $(TESTS)

lint: $(TEST_STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyrefly check --python-interpreter-path $(PY)
	$(PY) -m pytest tests/test_docs_links.py
	$(VENV)/bin/hadolint deploy/Dockerfile
	$(PY) -m tools.dependency_checks

wheel: $(TEST_STAMP)
	$(PY) -m hatchling build -t wheel

$(PY):
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): | $(PY)
	@echo "Installing what running needs into $(VENV) (the first time takes minutes) ..."
	$(PIP) -e .
	@rm -f $(VENV)/ready-run-*
	@touch $@

$(TEST_STAMP): | $(PY)
	@echo "Installing what testing needs into $(VENV) (the first time takes minutes) ..."
	$(PIP) -e ".[train,serve,test]"
	@rm -f $(VENV)/ready-run-* $(VENV)/ready-test-*
	@touch $(RUN_STAMP) $@

# A browser, three speech synthesisers, the emoji font, ffmpeg (for LangChain) and a proxy: for the tests, never for running.
system:
	@missing=""; for package in $(SYSTEM); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q "install ok installed" || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ]; then echo "Tests that need them will be skipped; as root: apt-get install$$missing"; exit 0; fi; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing
