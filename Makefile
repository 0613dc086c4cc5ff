# Everything is installed into .venv from the lock file; nothing outside this folder changes, except apt packages for `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
STAMP := .venv/.installed
export NUMBA_CACHE_DIR ?= $(CURDIR)/.numba
# Otherwise each of hundreds of processes would compile all modules again.
export PYTHONDONTWRITEBYTECODE :=
# Tests wait three times as long as they compute.
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 4 ? 4 * cores : 16)))

.PHONY: demo test check bench chaos soak boot-test pictures fuzz lock wheelhouse deb deb-test install coverage apt-test kernels collected clean

demo: install
	$(BIN)/tagtrail demo $(ARGS)

# First compile kernels and test modules and install packages in parallel: otherwise each worker would compile on its own.
test: install
	$(MAKE) --no-print-directory -j3 apt-test kernels collected
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# The tests with coverage, which fails below the floor in pyproject.toml. Takes half as long again, and doesn't count
# processes that tests start.
coverage: export TAGTRAIL_EXAMPLES = 1
coverage: install
	$(MAKE) --no-print-directory -j3 apt-test kernels collected
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(ARGS)

kernels: install
	$(BIN)/tagtrail warmup

collected: install
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest --collect-only -qq >/dev/null || $(BIN)/python -m pytest --collect-only -qq

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_project.py

bench: install
	$(BIN)/python -m pytest tests/benchmarks -o timeout=0 --benchmark-json=bench.json --junit-xml=bench.xml -o junit_family=xunit1 $(ARGS) && failed=0 || failed=$$?; \
	$(BIN)/python tests/benchmarks/report.py bench.json bench.xml && rm bench.xml && exit $$failed

# Fault tests, see docs/reliability.md.
chaos: install apt-test
	$(BIN)/python -m pytest tests/chaos -o norecursedirs= -p no:timeout $(ARGS)

# A compressed week of a store with sixteen readers, in an hour; ARGS="--hours 0.1 --days 0.7" is a short one.
soak: install apt-test
	$(BIN)/python -m pytest tests/soak -o norecursedirs= -p no:timeout $(ARGS)

# Regenerate the screenshots in README.md and docs/manager*.md.
pictures: install apt-test
	fc-list :lang=zh 2>/dev/null | grep -q . || apt-get install -y -qq --no-install-recommends fontconfig fonts-noto-cjk
	$(BIN)/python tests/browser/pictures.py

install: $(STAMP)

# uv takes half of pip's time; if it can't be installed, pip uses the same lock file.
$(STAMP): requirements.lock pyproject.toml Makefile
	rm -rf .venv
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tagtrail needs Python 3.11 or newer: set PYTHON=/path/to/python3")'
	$(PYTHON) -m venv .venv 2>/dev/null || { \
	  command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv .venv; } || { \
	  echo "python3 has no venv module: apt install python3-venv" >&2; exit 1; }
	if $(BIN)/python -m pip install -q --disable-pip-version-check 'uv==$(UV_VERSION)'; then \
	  $(BIN)/uv pip sync -q --python $(BIN)/python --compile-bytecode --require-hashes requirements.lock && \
	  $(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	touch $@

# Programs used by the tests; without root or apt, the tests that need them are skipped with a reason.
apt-test:
	@missing=; for pkg in mosquitto chromium-headless-shell postgresql tshark faketime; do \
	  [ -x /usr/sbin/$$pkg ] || command -v $$pkg >/dev/null || ls /usr/lib/$$pkg/*/bin/postgres >/dev/null 2>&1 || missing+=" $$pkg"; \
	done; \
	get() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$$@" >/dev/null 2>&1; }; \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  get $$missing || { apt-get update -qq >/dev/null 2>&1 && get $$missing; } || \
	    for pkg in $$missing; do get $$pkg || echo "apt could not install $$pkg; tests that need it are skipped"; done; \
	fi

# Needs the package atheris, which is not in the lock file: `.venv/bin/python -m pip install atheris` on Python 3.11 to 3.13.
fuzz: install
	mkdir -p .fuzz/llrp .fuzz/serial .fuzz/pushed
	for room in llrp serial pushed; do \
	  PYTHONPATH=. $(BIN)/python tests/fuzz/fuzz_$$room.py -max_total_time=300 -max_len=2048 -artifact_prefix=.fuzz/ $(ARGS) .fuzz/$$room; \
	done

lock:
	$(BIN)/python -m pip install -q --disable-pip-version-check 'uv==$(UV_VERSION)'
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11 --extra demo --extra chain --extra parquet --extra postgresql --extra dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11 -c requirements.lock pyproject.toml -o systemd/requirements.lock

# All wheels of a gateway, for systemd/install --wheelhouse.
wheelhouse: install
	rm -rf wheelhouse
	$(BIN)/python -m pip download -q --disable-pip-version-check --only-binary :all: --require-hashes -r systemd/requirements.lock -d wheelhouse
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w wheelhouse .

# dist/tagtrail_VERSION_ARCH.deb, for this machine's architecture.
deb: wheelhouse
	systemd/debian/build wheelhouse

# Install, upgrade, downgrade and purge it in an overlay over this machine's root; needs root.
deb-test: deb
	$(BIN)/python -m pytest tests/package -o norecursedirs= $(ARGS)

# Boot systemd as PID 1 on bare machines, and do there what the documents tell a technician, and a chain's engineer; needs root.
boot-test: deb apt-test
	command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap >/dev/null || true
	$(BIN)/python -m pytest tests/boot -o norecursedirs= $(ARGS)

clean:
	rm -rf .venv .numba .node .coverage build dist wheelhouse *.egg-info
