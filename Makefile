# The two commands of the README are `make run` and `make test`; `make check` is the quick loop.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check format proto tools servers clean

# One line a package instead of pip's dozens; a pipe hides pip's exit code, so what it installs is marked within it.
define install
@{ $(BIN)/pip install --disable-pip-version-check --progress-bar off --editable $(1) && touch $@; } | awk \
	'/^ *Collecting / { print "  " $$2; fflush() } /^Installing collected/ { print "  installing them"; fflush() }'
@test $@ -nt pyproject.toml
endef

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Raven needs Python 3.11 or newer")'
	@echo "Making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing Raven and the libraries it needs into $(VENV), about a minute:"
	$(call install,.)

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	@echo "Installing what tests and checks need into $(VENV), about a minute:"
	$(call install,'.[dev]')

run: $(VENV)/.run ## everything on this machine, in one terminal
	$(BIN)/raven up

check: $(VENV)/.dev ## format, lint, types, layers, unit and property tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n 6 --dist worksteal tests/unit

test: check tools servers ## all tests, real databases, real processes and real recorded data included
	$(BIN)/pytest -q -n 2 --dist worksteal tests/databases
	$(BIN)/pytest -q tests/e2e

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tools: $(VENV)/.run ## what tests need of the system: ip and openssl, systemd-analyze, Docker Compose
	@if command -v ip >/dev/null && command -v openssl >/dev/null && command -v systemd-analyze >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends iproute2 openssl systemd; \
	else echo "ip (iproute2), openssl or systemd-analyze is missing: tests of several machines and units will not run"; fi
	@if docker compose version >/dev/null 2>&1 || [ -x $(BIN)/docker-compose ]; then :; \
	elif command -v apt-get >/dev/null && sh tests/compose.sh $(CURDIR)/$(BIN)/docker-compose; then :; \
	else echo "Docker Compose is missing: tests of deploy/compose.yaml will not run"; fi

servers: $(VENV)/.dev ## TimescaleDB and InfluxDB for tests, set up once
	$(BIN)/python -m tests.servers install

proto: $(VENV)/.dev ## generate raven/rpc/pb from proto/
	$(BIN)/python -m raven.rpc.generate

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
