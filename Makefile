# make run    sets up what running needs and starts the page; prints its address
# make test   sets up what testing needs (system packages too, when root) and runs the whole suite
# make lint   style and import order
# A set-up is remembered by a stamp named after the hash of its requirement files: the next start takes seconds,
# and a changed requirement sets up again. Needs Python 3.11 or newer with venv and pip, and make.

PYTHON ?= python3
PORT ?= 8501
TESTS ?= tests

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --quiet
RUN_STAMP := $(VENV)/ready-run-$(shell cat requirements.txt | sha256sum | cut -c1-16)
TEST_STAMP := $(VENV)/ready-test-$(shell cat requirements.txt requirements/*.txt | sha256sum | cut -c1-16)
SYSTEM := chromium chromium-driver espeak-ng flite festival festvox-kallpc16k festvox-us-slt-hts fonts-noto-color-emoji

.PHONY: run test lint system

run: $(RUN_STAMP)
	@exec $(PY) -m app ui --port $(PORT)

test: $(TEST_STAMP) system
	$(PY) -m pytest $(TESTS)

lint: $(TEST_STAMP)
	$(PY) -m ruff check .

$(PY):
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): | $(PY)
	@echo "Installing what running needs into $(VENV) (the first time takes minutes) ..."
	$(PIP) -r requirements.txt
	@rm -f $(VENV)/ready-run-*
	@touch $@

$(TEST_STAMP): | $(PY)
	@echo "Installing what testing needs into $(VENV) (the first time takes minutes) ..."
	$(PIP) -r requirements/test.txt
	@rm -f $(VENV)/ready-run-* $(VENV)/ready-test-*
	@touch $(RUN_STAMP) $@

# A browser, three speech synthesisers and the emoji font: for the tests, never for running.
system:
	@missing=""; for package in $(SYSTEM); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q "install ok installed" || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ]; then echo "Tests that need them will be skipped; as root: apt-get install$$missing"; exit 0; fi; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing
