# Every target first makes the checkout ready (packaging/prepare.py): missing Debian packages, the virtual
# environment, the compiled part, the accounts. That needs root; as another user it asks sudo.
# ARGS='...' is handed on to the program a target runs, e.g. make test ARGS='tests/unit -x'.

PYTHON  ?= $(firstword $(wildcard /usr/bin/python3) python3)
PREPARE := $(PYTHON) packaging/prepare.py
LINT    := ruff check . && ruff format --check . && mypy

.DEFAULT_GOAL := help
.PHONY: help run test lint ready fuzz asan debug hostile-v2 kill-deployments certificate-renewals bench bench-functions wheel sdist clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 18

run: ## build, then a core, two devices and a function on this machine, with what they say to each other
	@$(PREPARE) run -- ggfast-core demo $(ARGS)

test: ## build, then linters, types and the whole test suite
	@$(PREPARE) test -- sh -c '($(LINT)); lint=$$?; python tests/lanes.py $(ARGS) || exit $$?; exit $$lint'

lint: ## linters and types alone
	@$(PREPARE) test -- sh -c '$(LINT)'

ready: ## build and set up, run nothing; afterwards the programs are in .venv/bin
	@$(PREPARE) test

fuzz: ## arbitrary bytes for the broker, guided by coverage: a few minutes; ARGS='--target session --runs 1000000'
	@$(PREPARE) fuzz -- python -m tests.fuzz $(ARGS)

# A program started with an empty environment cannot find the sanitizer: that is all this one test is about.
asan: ## the broker's tests with AddressSanitizer and UndefinedBehaviorSanitizer in build/asan
	@$(PREPARE) test -- python packaging/variant.py asan -- pytest $(or $(ARGS),tests/unit tests/property tests/vectors tests/fuzz \
	  --deselect tests/unit/test_doctor.py::test_without_root_it_says_what_it_could_not_check)

# An editable install of a variant would ask its environment for build tools, which it borrows and pip does not see.
debug: ## the whole test suite in build/debug: bounds checks, assertions, and nothing may stay alive after a test
	@$(PREPARE) test -- python packaging/variant.py debug -- pytest $(or $(ARGS), \
	  --deselect tests/e2e/test_packages.py::test_an_editable_install_runs_from_the_sources)

hostile-v2: ## the hostile functions on cgroup v2, in an emulated Debian: half an hour; ARGS='-- tests/sandbox -k row_22'
	@$(PREPARE) vm -- python packaging/vm/run.py --report '$(CURDIR)/tests/sandbox/HOSTILE-v2.md' $(ARGS)

kill-deployments: ## 200 deployments, each with a kill -9 of daemon, supervisor or control plane: ten minutes
	@$(PREPARE) test -- env GGFAST_TEST_KILLS=200 pytest tests/e2e/test_joined_kills.py $(ARGS)

certificate-renewals: ## server certificates of 60 s: renewed online, by the delegated CA, and by nobody: six minutes
	@$(PREPARE) test -- env GGFAST_TEST_CERTIFICATE_S=60 pytest tests/e2e/test_joined_certificates.py $(ARGS)

bench: ## the broker's benchmarks beside other brokers: speed, latency, memory, counts, attacks
	@$(PREPARE) test -- python -m bench $(ARGS)

bench-functions: ## start-up time and memory of functions
	@$(PREPARE) test -- python -m bench functions $(ARGS)

wheel: ## a wheel for this machine in dist/
	@$(PREPARE) test -- python -m build --no-isolation --wheel --outdir '$(CURDIR)/dist' $(ARGS)

sdist: ## the source archive in dist/
	@$(PREPARE) test -- python -m build --no-isolation --sdist --outdir '$(CURDIR)/dist' $(ARGS)

clean: ## remove everything that was made, the virtual environment too
	@$(PREPARE) clean
